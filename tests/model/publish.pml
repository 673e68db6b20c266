/* SPDX-License-Identifier: Apache-2.0
 *
 * Publish by one CAS, arena chunks and their reuse, pins, head; death or stop of a producer or consumer at
 * any step. The consumers stand for a shared group without a straggler table (group.pml has that).
 *
 * One atomic{} is one atomic instruction (a 16-byte word changes in one step). Seqs start at SLOTS, so that
 * the first stamps, t - SLOTS, are not negative. Sequentially consistent; tso.pml has the store buffers.
 *
 * Wrong versions: M_SEALWRONG, M_HINTSEAL, M_PINAFTER, M_NOPINS, M_EQONLY, M_SEQLATE, M_NOHEAD, M_PEEKSTAMP. */
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef CHUNKS
#define CHUNKS 3
#endif
#ifndef RPC
#define RPC 1            /* records per chunk */
#endif
#ifndef NP
#define NP 2
#endif
#ifndef NC
#define NC 1
#endif
#ifndef PER
#define PER 2            /* messages per producer */
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define FIRST SLOTS
#define LAST  (FIRST + NP*PER)
#define NREC  (CHUNKS*RPC)
#define OPEN 1
#define SEALED 0
#define NOC 255

byte stamp[SLOTS], ref[SLOTS];          /* slot ring: one 16-byte word each */
byte hint = FIRST, head = FIRST, floor = FIRST;
byte rseq[NREC], ra[NREC], rb[NREC];    /* records: seq and two halves of payload */
byte cst[CHUNKS], cown[CHUNKS], clast[CHUNKS]; /* chunk word {owner,state,last} */
byte lst[16], ln[16], lown[16]; /* lease words 0 none 1 leased 2 settled */
byte pin[NC];                           /* chunk+1, 0 = none */
/* ghosts */
byte truth[16];                     /* message id published as seq */
byte pubcount[NP*PER+1];
bool up[NP+NC] = true, dead[NP+NC] = false, gone[NP+NC] = false; /* up: runs; dead: provably dead */
bool fin[NP+NC] = false;
byte ghold[NC];                         /* seq whose bytes consumer may be reading */

#define CH(r) ((r)/RPC)
#define S(me) up[me] ->

inline raise_head(h, f) {               /* whoever needs room: advance floor, then head */
   do
   :: atomic { up[me] && lst[floor] == 2 && floor < LAST -> AF_floor: floor++ }                        /* [F1] */
   :: atomic { up[me] && !(lst[floor] == 2 && floor < LAST) -> H1_read: f = floor; h = head; break }      /* [H1] */
   od;
   atomic { S(me) H2_cas_head: if :: f > h && head == h -> head = f :: else fi; f = 0; h = 0 }   /* [H2] */
}

proctype Producer(byte me) {
   byte i = 0, c = NOC, used = RPC, r, t, h, f, k, last = 0, st, wl, m; bool ok;
   do
   :: i < PER ->
      m = me*PER + i + 1;
      if
      :: used == RPC ->
         if
         :: c != NOC ->
            /* seal with the last seq in it */
#ifdef M_SEALWRONG
            atomic { S(me) K4_seal: cst[c] = SEALED; clast[c] = last - 1; c = NOC }     /* [K4] */
#else
            atomic { S(me) K4_seal: cst[c] = SEALED; clast[c] = last; c = NOC }         /* [K4] */
#endif
         :: else
         fi;
         do /* find a free chunk */
         :: raise_head(h, f);
            atomic { S(me) H0_read_head: h = head };             /* [H0], then the fence [K0] */
            /* choose any sealed chunk whose last < h; or wait until something changes */
            if
            :: atomic { up[me] && cst[0] == SEALED && clast[0] < h -> K3_pick: k = 0; wl = clast[0] }
            :: atomic { up[me] && cst[1] == SEALED && clast[1] < h -> k = 1; wl = clast[1] }
#if CHUNKS > 2
            :: atomic { up[me] && cst[2] == SEALED && clast[2] < h -> k = 2; wl = clast[2] }
#endif
            :: atomic { up[me] && (head > h || floor > head || (lst[floor] == 2 && floor < LAST)) -> goto again }
            fi;
            ok = true; st = 0;
            do /* look at the pins AFTER head passed */
            :: st < NC -> atomic { S(me) K2_scan_pin: /* [K1] [K2] */ 
#ifdef M_NOPINS
                  skip; st++ }
#else
                  if :: pin[st] == k+1 && !gone[NP+st] -> ok = false :: else fi; st++ }
#endif

            :: else -> break
            od;
            if
            :: ok -> atomic { S(me) K3_cas_chunk: /* [K3] */
                        if :: cst[k] == SEALED && clast[k] == wl -> cst[k] = OPEN; cown[k] = me; c = k; used = 0
                           :: else fi };
                     if :: c != NOC -> break :: else fi
            :: else -> /* pinned: wait for a change, as a sleeping producer would */
               atomic { up[me] && ( (cst[0]==SEALED && clast[0] < head && pin[0] != 1
#if NC > 1
                          && pin[1] != 1
#endif
                          ) || (cst[1]==SEALED && clast[1] < head && pin[0] != 2
#if NC > 1
                          && pin[1] != 2
#endif
                          )
#if CHUNKS > 2
                          || (cst[2]==SEALED && clast[2] < head && pin[0] != 3
#if NC > 1
                          && pin[1] != 3
#endif
                          )
#endif
                          || gone[NP] 
#if NC > 1
                          || gone[NP+1]
#endif
                          || (lst[floor] == 2 && floor < LAST) || floor > head) -> skip }
            fi;
again:      skip
         od;
         atomic { h=0; f=0; k=0; wl=0; st=0; ok=0 }   /* dead locals: fewer states */
      :: else
      fi;
      r = c*RPC + used; used++;
      atomic { S(me) write_a: ra[r] = m };                 /* payload first */
      atomic { S(me) write_b: rb[r] = m };
      atomic { S(me) read_hint: t = hint };
      atomic { S(me) H0_read_head2: h = head };                 /* [H0] the head that it saw last */
      do
#ifdef M_NOHEAD
      :: false ->
#else
      :: t >= h + SLOTS || t < h ->      /* no room as far as it knows, or lapped */
#endif
         atomic { S(me) H0_read_head3: h = head; if :: t < h -> t = h :: else fi };      /* [H0] */
         if
         :: t >= h + SLOTS ->            /* full: whoever needs room recomputes, and then waits */
            raise_head(h, f);
            atomic { up[me] && (t < head + SLOTS || floor > head || (lst[floor] == 2 && floor < LAST)) -> h = head }
         :: else
         fi
      :: else ->
         atomic { S(me) P1_read_slot: st = stamp[t % SLOTS] };   /* [P1] */
         if
#ifdef M_EQONLY
         :: st == t -> t++
         :: st > t -> atomic { false }   /* it would try its CAS for ever */
#else
         :: st >= t -> t = st + 1
#endif
         :: st < t ->
            assert(st == t - SLOTS);     /* dense: nobody ever guesses beyond the tail */
#ifndef M_SEQLATE
            atomic { S(me) P2_write_seq: rseq[r] = t };      /* [P2] */
#endif
            atomic { S(me) P3_cas_slot:                       /* [P3] */
               if :: stamp[t%SLOTS] == st ->
                     /* the moment: the old message of this slot must be settled */
                     assert(st < FIRST || lst[st] == 2);
                     assert(truth[t] == 0);
                     stamp[t%SLOTS] = t; ref[t%SLOTS] = r; truth[t] = m; pubcount[m]++;
                     assert(pubcount[m] == 1); ok = true
                  :: else -> ok = false fi };
#ifdef M_SEQLATE
            if :: ok -> atomic { S(me) rseq[r] = t } :: else fi;
#endif
            if :: ok -> last = t; break :: else fi
         fi
      od;
      atomic { S(me) P4_move_hint: if :: hint < t + 1 -> hint = t + 1 :: else fi; i++;  /* [P4] */ t=0; st=0; h=0; f=0; ok=0; m=0; r=0 }
   :: else -> break
   od;
   /* clean close: seal */
   if :: c != NOC -> atomic { S(me) K4_seal_close: cst[c] = SEALED; clast[c] = last }    /* [K4] */ :: else fi;
   fin[me] = true
}

proctype Consumer(byte me) {
   byte c = me - NP, s, r, n, x, h, f, old; bool ok;
   do
   :: /* [C0] reads the slot {stamp, ref} of a seq that is not settled */
      if
      :: atomic { up[me] && FIRST+0 < LAST && lst[FIRST+0] != 2 && stamp[(FIRST+0)%SLOTS] == FIRST+0 && (lst[FIRST+0]==0 || (ln[FIRST+0] < 2 && lown[FIRST+0] != me)) -> s = FIRST+0; r = ref[s%SLOTS] }
      :: atomic { up[me] && FIRST+1 < LAST && lst[FIRST+1] != 2 && stamp[(FIRST+1)%SLOTS] == FIRST+1 && (lst[FIRST+1]==0 || (ln[FIRST+1] < 2 && lown[FIRST+1] != me)) -> s = FIRST+1; r = ref[s%SLOTS] }
      :: atomic { up[me] && FIRST+2 < LAST && lst[FIRST+2] != 2 && stamp[(FIRST+2)%SLOTS] == FIRST+2 && (lst[FIRST+2]==0 || (ln[FIRST+2] < 2 && lown[FIRST+2] != me)) -> s = FIRST+2; r = ref[s%SLOTS] }
      :: atomic { up[me] && FIRST+3 < LAST && lst[FIRST+3] != 2 && stamp[(FIRST+3)%SLOTS] == FIRST+3 && (lst[FIRST+3]==0 || (ln[FIRST+3] < 2 && lown[FIRST+3] != me)) -> s = FIRST+3; r = ref[s%SLOTS] }
      :: atomic { up[me] && FIRST+4 < LAST && lst[FIRST+4] != 2 && stamp[(FIRST+4)%SLOTS] == FIRST+4 && (lst[FIRST+4]==0 || (ln[FIRST+4] < 2 && lown[FIRST+4] != me)) -> s = FIRST+4; r = ref[s%SLOTS] }
      :: atomic { up[me] && FIRST+5 < LAST && lst[FIRST+5] != 2 && stamp[(FIRST+5)%SLOTS] == FIRST+5 && (lst[FIRST+5]==0 || (ln[FIRST+5] < 2 && lown[FIRST+5] != me)) -> s = FIRST+5; r = ref[s%SLOTS] }
      fi;
try:
#ifndef M_PINAFTER
      atomic { S(me) C1_pin: pin[c] = CH(r) + 1 };          /* [C1] */
#endif
      atomic { S(me) C2_read_lease: n = ln[s]; x = lst[s]; old = lown[s] };
      if
      :: x == 2 -> atomic { S(me) pin[c] = 0; s=0; r=0; n=0; x=0; old=0 }
      :: else ->
         /* a leased one is claimable when expired; expiry may come at any time */
         atomic { S(me) /* [L1] [L2] */ if :: lst[s] == x && ln[s] == n && lown[s] == old -> lst[s] = 1; ln[s] = n+1; lown[s] = me; ok = true
                     :: else -> ok = false fi };
#ifdef M_PINAFTER
         atomic { S(me) C1_pin_late: pin[c] = CH(r) + 1 };
#endif
         if
         :: ok ->
            atomic { S(me) read_a: assert(ra[r] == truth[s]); assert(rseq[r] == s) };
            atomic { S(me) read_b: assert(rb[r] == truth[s]) };
            atomic { S(me) /* [L3] */ if :: lst[s] == 1 && ln[s] == n+1 && lown[s] == me -> lst[s] = 2; ok = true :: else -> ok = false fi };
            /* holder may read until it drops its delivery, lease or no lease */
            atomic { S(me) read_late: assert(ra[r] == truth[s] && rb[r] == truth[s]) }
         :: else
         fi;
         atomic { S(me) C3_unpin: /* [C3] */ pin[c] = 0; s=0; r=0; n=0; x=0; old=0; ok=0 };
         skip
      fi
   od
}

#ifdef PEEK
proctype Peeker() {                     /* reader without a lease: copy, then check */
   byte s, r, x, y; bool ok;
   atomic { stamp[0] >= FIRST -> C0_read_slot: s = stamp[0]; r = ref[0] };   /* [C0] */
   copy_a: atomic { x = ra[r] };
   copy_b: atomic { y = rb[r] };
#ifdef M_PEEKSTAMP
   check: atomic { ok = (stamp[0] == s) };
#else
   V1_check: atomic { ok = (head <= s) };       /* [V1] */
#endif
   if :: ok -> assert(x == truth[s] && y == truth[s]) :: else fi
}
#endif

proctype Killer() {                     /* KILLS victims: killed (provable) or stopped for ever */
   byte k = 0;
   do
   :: k < KILLS ->
      if
      :: atomic { up[0] -> up[0] = false; if :: dead[0] = true :: skip fi }
      :: atomic { up[NP] && NC > 1 -> up[NP] = false; if :: dead[NP] = true :: skip fi }
      :: break
      fi; k++
   :: else -> break
   od
}

proctype Reclaimer() {
   byte p, t, k, w; bool ok;
   do
   :: atomic { dead[0] && !gone[0] -> p = 0 };
      /* seal its open chunk at the tail seen after its death */
      read_hint: atomic { t = hint };
#ifndef M_HINTSEAL
      do
      :: atomic { stamp[t%SLOTS] >= t -> walk: t = stamp[t%SLOTS] + 1 }
      :: atomic { stamp[t%SLOTS] <  t -> break }
      od;
#endif
      k = 0;
      do
      :: k < CHUNKS -> R1_cas_seal: atomic { /* [R1] */ if :: cst[k] == OPEN && cown[k] == p -> cst[k] = SEALED; clast[k] = t - 1 :: else fi; k++ }
      :: else -> break
      od;
      gone[p] = true
#if NC > 1
   :: atomic { dead[NP] && !gone[NP] -> k = FIRST };
      do
      :: k < LAST -> atomic { /* [L5] */ if :: lst[k] == 1 && lown[k] == NP -> lst[k] = 0 :: else fi; k++ }
      :: else -> break
      od;
      R3_gone: atomic { gone[NP] = true }   /* [R3] the pins are of a life that is over */
#endif
   od
}

proctype Monitor() {                    /* nothing can move any more: what must hold then */
   byte s, k;
   atomic { timeout ->
   s = 0;
   do :: s < NP -> assert(fin[s] || !up[s]); s++ :: else -> break od; /* a stopped or dead one blocked nobody */
   s = FIRST;
   do :: s < LAST -> assert(truth[s] == 0 || lst[s] == 2 || !up[NP]); s++ :: else -> break od;
   if :: up[NP] || NC > 1 ->
      k = 0; do :: k < CHUNKS -> assert(cst[k] == SEALED || (up[cown[k]] == false && !dead[cown[k]])); assert(cst[k] == OPEN || clast[k] < floor || truth[floor] != 0); k++ :: else -> break od
   :: else fi
   }
}

init { atomic {
   byte i;
   i = 0; do :: i < SLOTS -> stamp[i] = i; i++ :: else -> break od;
   i = 0; do :: i < NP -> run Producer(i); i++ :: else -> break od;
   i = 0; do :: i < NC -> run Consumer(NP+i); i++ :: else -> break od;
   run Killer(); run Reclaimer(); run Monitor();
#ifdef PEEK
   run Peeker();
#endif
} }
