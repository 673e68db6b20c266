/* SPDX-License-Identifier: Apache-2.0
 *
 * Head against birth and removal of groups. Head is a word {head, epoch}; a birth and a removal raise the
 * epoch by CAS on the word that the floor was computed from.
 *
 *   group entry: gst 0 free 1 forming 2 joining 3 active 4 retired (2 and 3 count), gfl floor; two words,
 *   read one after the other. [G1] to [G4] here are those of lib/src/queue/groups.cpp.
 *
 * The creator, or the remover, may be killed at any step; who comes next heals what it left. For everybody
 * else a kill is the same as not being scheduled any more, and only assertions are checked.
 *
 * Wrong versions: M_RECHECK, M_STORE, M_NOEPOCH, M_FLOORLATE, M_STATELATE.                                  */
#ifndef TAIL
#define TAIL 3
#endif
#ifndef NREC
#define NREC 2
#endif
byte head = 0, ep = 0;
byte gst[2], gfl[2];
byte kills = 1; bool creator_dead = false;
#define COUNTS(s) ((s) == 2 || (s) == 3)
#define DIE if :: kills > 0 -> kills--; goto died :: skip fi

proctype Recomputer() { byte m, h, e, a, i;
end:
  do
  :: atomic { h = head; e = ep; i = 0; m = 255 };                          /* [H1] */
     do
     :: i < 2 -> atomic { a = gst[i] };
        if
        :: COUNTS(a) -> atomic { if :: gfl[i] < m -> m = gfl[i] :: else fi; a = 0; i++ }
        :: else -> atomic { a = 0; i++ }
        fi
     :: else -> break
     od;
     if :: m != 255 && m > h ->
#ifdef M_STORE
H2:     atomic { head = m }
#elif defined(M_RECHECK)
H2:     atomic { if :: head == h -> head = m :: else fi }
#else
H2:     atomic { if :: head == h && ep == e -> head = m :: else fi }       /* [H2] */
#endif
     :: else fi;
     atomic { assert(gst[0] != 3 || head <= gfl[0]); assert(gst[1] != 3 || head <= gfl[1]); m = 0; h = 0; e = 0; i = 0 }
  :: true -> break
  od }

proctype Owner() { byte h, e;   /* group 0 settles its messages, and may be removed at any point */
end:
  do
  :: atomic { gst[0] == 3 && gfl[0] < TAIL -> gfl[0]++ }                   /* [F1] */
#ifdef REMOVE
  :: atomic { gst[0] == 3 -> gst[0] = 4 };                                 /* [G4] */
     if :: kills > 0 -> kills--; break :: skip fi;                         /* killed before it raised the epoch */
     do
     :: atomic { h = head; e = ep };
        atomic { if :: head == h && ep == e -> ep = e + 1; break :: else fi }  /* [H2] of the remover */
     od;
     break
#endif
  :: gst[0] == 3 && gfl[0] == TAIL -> break
  od }

/* Where it is born: the free entry 1, or entry 0 once it is retired. */
proctype Creator() { byte h, e, g;
  if :: g = 1
#ifdef REMOVE
     :: atomic { gst[0] == 4 -> g = 0 }
#endif
  fi;
  atomic { gst[g] = 1 };                                                   /* forming */
again:
  atomic { h = head; e = ep };                                             /* [H0] */
  DIE;
  atomic { gfl[g] = h };
#ifdef M_FLOORLATE
  atomic { if :: head == h && ep == e -> ep = e + 1 :: else -> goto again fi };
  atomic { gst[g] = 2 };
#else
#ifndef M_STATELATE
G1: atomic { gst[g] = 2 };                                                 /* [G1] the floor counts */
#endif
  DIE;
#ifdef M_NOEPOCH
  skip;
#elif defined(M_RECHECK) || defined(M_STORE)
  atomic { if :: head == h -> skip :: else -> gst[g] = 1; goto again fi };
#else
G2: atomic { if :: head == h && ep == e -> ep = e + 1                      /* [G2] */
                :: else -> gst[g] = 1; goto again fi };
#endif
  DIE;
#endif
G3: atomic { gst[g] = 3; assert(head <= gfl[g]) };                         /* [G3] the group exists */
  do            /* from now on nothing at or above its floor may be overwritten */
  :: atomic { gfl[g] < TAIL -> assert(head <= gfl[g]); gfl[g]++ }          /* [F1] */
  :: else -> goto done
  od;
died:
  atomic { if :: gst[g] == 1 || gst[g] == 2 -> gst[g] = 0 :: else fi };    /* healed by the next administrator */
done: skip }

init { atomic { gst[0] = 3; byte i; do :: i < NREC -> run Recomputer(); i++ :: else -> break od; run Owner(); run Creator() } }
