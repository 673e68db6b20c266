/* SPDX-License-Identifier: Apache-2.0
 *
 * Pins where no claim protects: an exclusive group with take-over and drop_oldest; with -DSHARED a shared
 * group, whose entries the drop settles (or evicts, if leased) before it moves the floor.
 *
 * Seqs 0 and 1 lie in chunk 0, seq 2 in chunk 1; rec[c] says whose bytes chunk c holds (1 its own, 2 foreign).
 * Only assertions are checked: a kill at any step is the same as not being scheduled any more.
 *
 * -DRETURNED: what was given back is handed out again; the entry's CAS [W3] stands in the place of the look [C4],
 * and a drop does not touch the entry. So the pin must be one that passed its look [C2]: a pin that did not is given
 * up before the next try.
 *
 * Wrong versions: M_NOC2, M_OWNERONLY, M_HEADFIRST, M_PINSFIRST, with RETURNED M_KEEPPIN, with SHARED M_JUMP,
 * M_TABLELAST, M_NOEVICT.                                                                                       */
#define LASTSEQ 2
#ifndef NC
#define NC 2
#endif
#ifndef GMAX
#define GMAX 2                  /* take-overs */
#endif
#ifndef ROUNDS
#define ROUNDS 1                /* of the dropper and the producer */
#endif
#ifndef CROUNDS
#define CROUNDS 2               /* of a consumer, with SHARED */
#endif
#define CH(s) ((s)/2)
byte floor = 0, own = 0, gen = 0;       /* the group's word {floor, owner, generation}: one CAS */
byte head = 0;
byte rec[2] = 1;
byte pin[NC];                           /* chunk + 1; 0: none */
byte est[LASTSEQ+1], eo[LASTSEQ+1];     /* SHARED, window entries: 0 never 1 leased 2 settled 3 moved */
byte ttab[LASTSEQ+1];                   /* SHARED, straggler table: 0 free 1 reserved 2 live */
bool acked[LASTSEQ+1];

#ifdef M_OWNERONLY
#define OWNERONLY true
#else
#define OWNERONLY false
#endif
#define IDLE atomic { pin[me] = 0; pinned = 255 }               /* [C3] */

proctype Consumer(byte me) { byte s, g, f, n, pinned = 255; bool ok, tried;
end:
  do
#ifndef SHARED
  :: atomic { own != me+1 && gen < GMAX -> f = floor; g = gen };
O1:  atomic { if :: floor == f && gen == g -> own = me+1; gen = g+1; g = gen; s = f; ok = true :: else -> ok = false fi };  /* [O1] */
     do
     :: ok && s <= LASTSEQ ->
look:   /* [C0] the slot of s names its chunk */
        if
        :: pinned == CH(s) -> skip                              /* the pin of the message before */
        :: else ->
C1:        atomic { pin[me] = CH(s)+1; pinned = CH(s) };        /* [C1], then a full fence */
#ifndef M_NOC2
C2:        atomic { ok = (own == me+1 && gen == g) };           /* [C2] the owner, the floor, the head */
#ifndef M_OWNERONLY
           atomic { ok = (ok && floor <= s) };
           atomic { ok = (ok && head <= s) };
#endif
#endif
        fi;
        if
        :: ok ->
#ifdef RETURNED
W3:        atomic { ok = (own == me+1 && gen == g) };           /* [W3] the entry is as a drop left it: untouched */
#elif !defined(M_NOC2)
           skip;                                                /* [O3] */
C4:        atomic { ok = (own == me+1 && gen == g && (floor <= s || OWNERONLY)) };     /* [C4] before the hand-out */
#endif
           if :: ok ->
              assert(rec[CH(s)] == 1);                          /* reads its message */
F1:           atomic { if :: own == me+1 && gen == g && floor == s -> assert(!acked[s]); acked[s] = true; floor = s+1
                          :: else -> ok = false fi };           /* [F1] the ack */
              assert(rec[CH(s)] == 1)                           /* reads it still: lease or no lease */
           :: else fi
#ifdef RETURNED
        :: !ok && !tried -> tried = true;
#ifndef M_KEEPPIN
           IDLE;
#endif
           ok = true; goto look
        :: !ok && tried
#else
        :: else
#endif
        fi;
        atomic { s++; tried = false }
     :: else -> break
     od;
     IDLE; atomic { s = 0; g = 0; f = 0; ok = false; tried = false }
#else
  :: atomic { n < CROUNDS && floor <= LASTSEQ && est[floor] == 0 -> s = floor; n++ };
     goto take
  :: atomic { n < CROUNDS && floor < LASTSEQ && est[floor+1] == 0 -> s = floor+1; n++ };
take:
C1:  atomic { pin[me] = CH(s)+1 };                              /* [C1]; the claiming CAS orders it */
L1:  atomic { if :: est[s] == 0 -> est[s] = 1; eo[s] = me; ok = true :: else -> ok = false fi };     /* [L1] */
     if :: ok ->
        assert(rec[CH(s)] == 1);
        if
        :: true ->
L3:        atomic { if :: est[s] == 1 && eo[s] == me -> est[s] = 2; ok = false :: else fi };    /* [L3] */
           if :: ok ->                                          /* evicted: in the table, and made live if it is not */
T5:           atomic { if :: ttab[s] != 0 && est[s] == 3 && eo[s] == me -> ttab[s] = 0          /* [T3] [T5] */
                          :: else -> assert(eo[s] != me) fi }   /* a drop takes no valid lease away */
           :: else fi;
           assert(rec[CH(s)] == 1)
        :: true -> skip                                         /* gives up its pin, not its lease: it expires */
        fi
     :: else fi;
     atomic { pin[me] = 0; s = 0; ok = false }                  /* [C3] */
#ifdef EXPIRED
  /* a straggler whose lease expired is claimed in the table; the entry holds its chunk until it is settled */
  :: atomic { n < CROUNDS && ttab[0] == 2 -> s = 0; n++ };
     atomic { pin[me] = CH(s)+1 };                              /* [C1] */
T4:  atomic { ok = (ttab[s] == 2); if :: ok -> eo[s] = me :: else fi };   /* [T4] */
     if :: ok -> assert(rec[CH(s)] == 1);
        atomic { if :: ttab[s] == 2 && eo[s] == me -> ttab[s] = 0 :: else fi };                 /* [T5] */
        assert(rec[CH(s)] == 1) :: else fi;
     atomic { pin[me] = 0; s = 0; ok = false }
#endif
#endif
  :: true -> break
  od }

inline raise_head() {
  atomic { h = head; f = floor };                               /* [H1] */
  atomic { if :: f > h && head == h -> head = f :: else fi; h = 0; f = 0 }   /* [H2] */
}

/* drop_oldest: up to the last seq of a chunk, 0 or 1 */
proctype Dropper() { byte n, to, f, h, o, i; bool ok;
end:
  do
  :: atomic { n < ROUNDS && floor <= LASTSEQ -> n++; if :: to = 2 :: to = 3 fi };
#ifdef M_HEADFIRST
     atomic { if :: head < to -> head = to :: else fi };
#endif
#ifdef SHARED
     i = floor;
     do
     :: i < to ->
#ifndef M_JUMP
        atomic { o = est[i]; ok = true };
        if
        :: o == 0 -> atomic { if :: est[i] == 0 -> est[i] = 2 :: else -> ok = false fi }        /* [D2] settled by the drop */
        :: o == 1 ->
#ifdef M_NOEVICT                                                  /* a lease is settled under its holder */
           atomic { if :: est[i] == 1 -> est[i] = 2 :: else -> ok = false fi }
#else
           if :: atomic { ttab[i] == 0 -> ttab[i] = 1 };                                        /* [T1] */
T2:           atomic { if :: est[i] == 1 -> est[i] = 3 :: else -> ok = false fi };              /* [T2] */
              atomic { if :: ok && ttab[i] == 1 -> ttab[i] = 2 :: !ok -> ttab[i] = 0 :: else fi }   /* [T3] [T6] */
           fi                                                   /* one dropper: the table has room */
#endif
        :: else
        fi;
        if :: ok -> i++ :: else fi
#else
        i++
#endif
     :: else -> break
     od;
     atomic { if :: floor < to -> floor = to :: else fi };                                      /* [F1] */
#else
     atomic { f = floor; h = gen };
     if :: f < to ->
D1:     atomic { if :: floor == f && gen == h -> floor = to :: else fi; f = 0; h = 0 }          /* [D1] */
     :: else -> atomic { f = 0; h = 0 } fi;
#endif
     raise_head();
     atomic { to = 0; i = 0; o = 0; ok = false }
  :: true -> break
  od }

/* A producer that wants a chunk: head, fence, tables, pins, CAS. */
proctype Reuser() { byte n, h, f, c, i; bool ok;
end:
  do
  :: atomic { n < ROUNDS -> n++; if :: c = 0 :: c = 1 fi };
     ok = true;
#ifdef M_PINSFIRST
     i = 0; do :: i < NC -> atomic { if :: pin[i] == c+1 -> ok = false :: else fi; i++ } :: else -> break od;
#endif
     raise_head();
     atomic { h = head; assert(head <= floor) };                /* [H0], then the fence [K0] */
     if
     :: h > (c == 0 -> 1 : 2) && rec[c] == 1 ->
#ifdef SHARED
#ifndef M_TABLELAST
        atomic { if :: (c == 0 && (ttab[0] != 0 || ttab[1] != 0)) || (c == 1 && ttab[2] != 0) -> ok = false :: else fi };
#endif
#endif
#ifndef M_PINSFIRST
        i = 0; do :: i < NC -> atomic { if :: pin[i] == c+1 -> ok = false :: else fi; i++ } :: else -> break od;  /* [K1] [K2] */
#endif
#ifdef M_TABLELAST
        atomic { if :: (c == 0 && (ttab[0] != 0 || ttab[1] != 0)) || (c == 1 && ttab[2] != 0) -> ok = false :: else fi };
#endif
        if :: ok ->
K3:        atomic { rec[c] = 2 }                                /* [K3], and writes */
        :: else fi
     :: else
     fi;
     atomic { h = 0; c = 0; i = 0; ok = false }
  :: true -> break
  od }

init { atomic { byte k; do :: k < NC -> run Consumer(k); k++ :: else -> break od; run Dropper(); run Reuser() } }
