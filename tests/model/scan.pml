/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunk reuse against the straggler table and compaction. A straggler of seq 0 with an expired lease lies in the
 * table, its record in chunk 0; head is 1. Two consumers claim it, either may settle it and go on reading. A producer
 * copies the record to chunk 1, which it has open, moves the place [T8] and seals chunk 1 [K4]. Others look at head,
 * the table, the pins, and reuse chunks: chunk 0 by a fresh judgement, chunk 1 by one that may be old by the
 * time it is used (a producer keeps its judgement). After the claiming CAS the place is read again [T7].
 *
 * A chunk that holds copies is sealed with a seq at or above the tail: an older judgement must not take it.
 * Only assertions are checked: a kill at any step is the same as not being scheduled any more.
 *
 * Wrong versions: M_PINSFIRST, M_NOREPLACE, M_NOTABLE, M_SEALOWN.                                             */
byte tst = 3, tn = 1, to = 0, place = 0;        /* table word: 0 free 2 leased 3 ready; place: the chunk */
byte rec[2]; byte pin[2];                       /* 1 the record 2 foreign; pin: chunk + 1 */
byte head = 1;                                  /* and the tail; seq 1 is published and settled later */
bool sealed1; byte last1;                       /* chunk 1: its state and last seq */

proctype Consumer(byte me) { byte n, p, st, o; bool ok;
end:
  do
  :: atomic { tst != 0 && tn < 3 -> st = tst; n = tn; o = to };            /* due; an expiry may come at any time */
     atomic { p = place };
C1:  atomic { pin[me] = p + 1 };                                           /* [C1] */
T4:  atomic { if :: tst == st && tn == n && to == o && st != 0 -> tst = 2; tn = n + 1; to = me; ok = true :: else -> ok = false fi };  /* [T4] */
#ifndef M_NOREPLACE
     do
     :: ok && place != p && tst == 2 && tn == n+1 ->
T7:     atomic { p = place }; atomic { pin[me] = p + 1 }                   /* [T7] moved meanwhile: pin it where it is */
     :: else -> break
     od;
     /* the place is as it was pinned, or the entry is no longer ours: lease_lost */
     atomic { if :: ok && !(tst == 2 && tn == n+1) -> ok = false :: ok && place != p -> ok = false /* never reached: one move */ :: else fi };
#endif
     if :: ok ->
        assert(rec[p] == 1);
        if
        :: true ->
T5:        atomic { if :: tst == 2 && tn == n+1 && to == me -> tst = 0 :: else fi }    /* [T5] */
        :: true -> skip                                                    /* keeps it until it expires */
        fi;
        assert(rec[p] == 1)                                                /* reads on: lease or no lease */
     :: else fi;
C3:  atomic { pin[me] = 0; n = 0; p = 0; st = 0; o = 0; ok = false }       /* [C3] */
  :: tst == 0 || tn == 3 -> break
  od }

proctype Copier() { byte x, p;
end:
  atomic { tst != 0 -> p = place };
  x = rec[p];
  rec[1] = x;
T8: atomic { if :: tst != 0 && place == p -> place = 1 :: else fi };       /* [T8] */
#ifdef M_SEALOWN
  atomic { last1 = 0; sealed1 = true } }                                   /* with the seq of what it holds */
#else
K4: atomic { last1 = head; sealed1 = true } }                              /* [K4] with the tail, a seq yet to come */
#endif

proctype Settler() { head = 2 }                                            /* seq 1 is published, settled, passed */

#define NAMED(c) (tst != 0 && place == (c))
#define PINNED(c) (pin[0] == (c)+1 || pin[1] == (c)+1)

proctype Reuser() { bool ok = true;
#ifdef M_PINSFIRST
  atomic { ok = ok && pin[0] != 1 }; atomic { ok = ok && pin[1] != 1 };
  atomic { ok = ok && !NAMED(0) };
#else
#ifndef M_NOTABLE
  atomic { ok = ok && !NAMED(0) };                                         /* [K5] the table */
#endif
  atomic { ok = ok && pin[0] != 1 }; atomic { ok = ok && pin[1] != 1 };    /* [K1] [K2] then the pins */
#endif
  if :: ok ->
K3: rec[0] = 2 :: else fi }                                                /* [K3] */

proctype Keeper() { byte h; bool held; byte n = 2;
  do
  :: n > 0 -> n--;
     atomic { h = head };                                                  /* [H0], then the fence [K0] */
     atomic { held = NAMED(1) };                                           /* [K5] */
     atomic { held = (held || PINNED(1)) };                                /* [K1] [K2] */
     if
     :: atomic { sealed1 && last1 < h && !held ->
K3k:    rec[1] = 2; sealed1 = false }; break                               /* [K3] much later, perhaps */
     :: true -> skip                                                       /* judges again */
     fi
  :: else -> break
  od }

init { atomic { rec[0] = 1; rec[1] = 2; run Consumer(0); run Consumer(1); run Reuser(); run Copier(); run Settler(); run Keeper() } }
