/* SPDX-License-Identifier: Apache-2.0
 *
 * Participants: attach, death at any step, reclaim by two at once, reuse of the one entry with a new generation.
 *
 *   attach: read a free entry, take its lock, CAS it to alive [A1]; reclaim: read the entry, prove death by the
 *   lock (held until the end), CAS to dead [R0]; per lease or ownership: read the word, see that the entry still
 *   is {generation, dead}, CAS [R2]; CAS to free [R3]. Pins carry the generation and are cleared by nobody else.
 *
 * -DNOHOLD: the reclaimer lets go of the lock at once. The steps must be right even so.
 *
 * Wrong versions: M_CLAIMFIRST, M_PROBEFIRST, M_GENFIRST, M_PINCLEAR, M_NOPROOF.                                */
#ifndef NA
#define NA 2            /* lives, in turn */
#endif
byte est = 0, gen = 0;             /* the entry's word: 0 free 1 attaching 2 alive 3 dead; generation */
byte lock = 0;                     /* who holds the OFD lock: life + 1, or 100 + a reclaimer */
byte pinv = 0, ping = 0;           /* a pin: {chunk, generation} */
byte lst = 0, ln = 0;              /* a word that names its owner by entry: 1 owned; a token */
bool up[NA] = true; byte kills = 0; bool fin[NA];
byte gown = 0;                     /* the check's own: life + 1 that has a valid lease */
#define DIE if :: kills < NA-1 && up[me] -> atomic { kills++; up[me] = false; if :: lock == me+1 -> lock = 0 :: else fi; if :: gown == me+1 -> gown = 0 :: else fi }; goto over :: skip fi

proctype Attacher(byte me) { byte g; bool ok;
again: ok = false;
#ifdef M_CLAIMFIRST                                       /* the entry first, the lock second, alive by a store */
   atomic { est == 0 -> g = gen };
   atomic { if :: est == 0 && gen == g -> est = 1; gen = g+1; g = g+1; ok = true :: else fi };
   if :: !ok -> goto again :: else fi;
   DIE;
   atomic { if :: lock == 0 -> lock = me+1; ok = true :: else -> ok = false fi };
   if :: !ok -> atomic { if :: est == 1 && gen == g -> est = 0 :: else fi }; goto again :: else fi;
   DIE;
   atomic { est = 2 };
#else
   atomic { est == 0 -> g = gen };
   atomic { if :: lock == 0 -> lock = me+1; ok = true :: else -> ok = false fi };      /* the lock first */
   if :: !ok -> atomic { (lock == 0) -> skip }; goto again :: else fi;
   DIE;
A1: atomic { if :: est == 0 && gen == g -> est = 2; gen = g+1; g = g+1 :: else -> ok = false fi };      /* [A0] [A1] */
   if :: !ok -> atomic { lock = 0 }; goto again :: else fi;
#endif
   DIE;
   assert(lock == me+1 && est == 2 && gen == g);          /* it is mine alone */
C1: atomic { pinv = 1; ping = g };                        /* [C1] */
   DIE;
   assert(lst == 0);                                      /* what the dead owned was freed before the entry was */
O1: atomic { lst = 1; ln++; assert(gown == 0); gown = me+1; ok = true };               /* [L1] [O1] */
   DIE;
   if :: ok -> assert(lst == 1 && gown == me+1); assert(pinv == 1 && ping == gen && est == 2) :: else fi;
   DIE;
   assert(est == 2 && gen == g);                          /* no false death */
   if :: ok -> assert(lst == 1); assert(pinv == 1 && ping == gen);
        atomic { lst = 0; gown = 0 } :: else fi;          /* [L3] [O5] gives it back */
C3: atomic { pinv = 0 };                                  /* [C3] */
A3: atomic { assert(est == 2 && gen == g); est = 0 };     /* [A3] free while the lock is held */
   atomic { if :: lock == me+1 -> lock = 0 :: else fi };
over: fin[me] = true }

proctype Reclaimer(byte me) { byte s, g, x, n; bool ok;
   do
   ::
#ifdef M_PROBEFIRST
      atomic { lock == 0 -> skip };
      atomic { s = est; g = gen };
      if :: s == 1 || s == 2 ->
#else
      atomic { est != 0 -> s = est; g = gen };            /* the entry, then the lock */
#ifdef M_NOPROOF
      if :: s == 1 || s == 2 ->
#else
#ifdef NOHOLD
      if :: s == 1 || s == 2 ->
         atomic { ok = (lock == 0) };
         if :: !ok -> atomic { lock == 0 || gen != g || est != s }; goto next :: else fi;
#else
      atomic { ok = (lock == 0); if :: ok -> lock = 100 + me :: else fi };
      if :: !ok -> atomic { lock == 0 || gen != g || est != s }; goto next :: else fi;
      if :: s == 1 || s == 2 ->
#endif
#endif
#endif
R0:      atomic { if :: est == s && gen == g -> est = 3; s = 3 :: else fi } :: else fi;                 /* [R0] */
      if :: s == 3 ->
#ifdef M_GENFIRST
         atomic { ok = (est == 3 && gen == g) }; atomic { x = lst; n = ln };
#else
         atomic { x = lst; n = ln }; atomic { ok = (est == 3 && gen == g) };
#endif
         if :: ok && x == 1 ->
R2:         atomic { if :: lst == 1 && ln == n -> assert(gown == 0); lst = 0 :: else fi } :: else fi;   /* [L5] [R2] */
#ifdef M_PINCLEAR
         atomic { pinv = 0 };
#endif
R3:      atomic { if :: est == 3 && gen == g -> est = 0; assert(lst == 0 || gown != 0) :: else fi }     /* [R3] */
      :: else fi;
      atomic { if :: lock == 100 + me -> lock = 0 :: else fi };
next: atomic { s=0; g=0; x=0; n=0; ok=false }
   od }

proctype Monitor() { byte i; atomic { timeout ->
   do :: i < NA -> assert(fin[i]); i++ :: else -> break od;    /* nobody waits for ever */
   assert(est == 0); assert(lst == 0) } }                      /* nothing leaked */

init { atomic { byte i; do :: i < NA -> run Attacher(i); i++ :: else -> break od; run Reclaimer(0); run Reclaimer(1); run Monitor() } }
