/* SPDX-License-Identifier: Apache-2.0
 *
 * One shared group: lease window, straggler table, expiry, reclaim, floor. All messages are published.
 *
 *   window word  {wseq; wst, wn, wo, wd}  wst: 0 settled 1 leased 2 ready 3 moved (wd: index, wn: generation)
 *   table word   {ts; tst, tn, to, td, tev}  tst: 0 free 1 reserved, leased 2 reserved, ready 3 leased 4 ready
 *                free: td is the generation; reserved: tev the evictor, td the low bits of the generation
 *   beside it    tgen: the generation, tdl: the deadline; written after the reservation, before T2
 *
 * One atomic{} is one atomic instruction; a CAS compares the whole word that was read before. Stores that
 * nobody reads without what follows them may share one. A process stops at any step when up[me] is false:
 * killed (dead, and so provably) or stopped for ever.
 *
 * -DDROP: the evictor drops: what is ready or never handed out is settled, what is leased is evicted.
 *
 * Wrong versions: M_NOGEN, M_GENBESIDE, M_FREENOGEN, M_NORESERVE, M_CANCELLIVE, M_DLOUT, M_TABLEFIRST,
 * M_FLOORNOCOMMIT, M_ACKNON, M_NORECLAIMTABLE, M_NOREREAD, M_LIVEEVICTOR, M_DROPJUMP.                   */
#ifndef W
#define W 1             /* window entries */
#endif
#define TN 1            /* table entries */
#ifndef NM
#define NM 2            /* messages */
#endif
#ifndef NCO
#define NCO 2           /* consumers */
#endif
#ifndef NE
#define NE 1            /* evictors: whoever needs room */
#endif
#ifndef TMAX
#define TMAX 1          /* the clock goes up to this */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef NMAX
#define NMAX 2          /* given back only below this hand-out number: keeps it finite */
#endif
#define FIRST W
#define LAST (W+NM)
#define NP (NCO+NE)
byte floor = FIRST, now = 0;
byte wseq[W], wst[W], wn[W], wo[W], wd[W];
byte ts[TN], tst[TN], tn[TN], to[TN], td[TN], tev[TN];
byte tgen[TN], tdl[TN];
bool up[NP] = true, dead[NP] = false, gone[NP] = false;
/* What the checks need to know, and the processes do not. */
bool acked[LAST]; byte glast[LAST];
byte gs[NCO], gd[NCO];  /* what a holder believes: seq, deadline */

#define EQW(i) (wseq[i]==q && wst[i]==x && wn[i]==n && wo[i]==o && wd[i]==d)
#define EQT(k) (ts[k]==q && tst[k]==x && tn[k]==n && to[k]==o && td[k]==d && tev[k]==e)
#define RESERVED(x) ((x)==1 || (x)==2)
/* Is the reservation that was read the one that a window entry names? */
#if defined(M_NOGEN)
#define NAMED(g) true
#elif defined(M_GENBESIDE)
#define NAMED(g) (tgen[k]==(g))                 /* only by the word beside: it may be an older use's */
#else
#define NAMED(g) (d==(g) && tgen[k]==(g))
#endif
#ifdef M_LIVEEVICTOR
#define OF_LIVING false                         /* reclaim looks at the reservations of the dead only */
#else
#define OF_LIVING true                          /* and at the dead's leases in those of the living */
#endif
#define RDW(i) q=wseq[i]; x=wst[i]; n=wn[i]; o=wo[i]; d=wd[i]
#define RDT(k) q=ts[k]; x=tst[k]; n=tn[k]; o=to[k]; d=td[k]; e=tev[k]
#define CLR q=0; x=0; n=0; o=0; d=0
#define FREET(k,g) ts[k]=0; tst[k]=0; tn[k]=0; to[k]=0; td[k]=g; tev[k]=0
#define LIVE(k) assert(x != 1 || !gone[o]); tst[k]=x+2; td[k]=tdl[k]; tev[k]=0
#define DUEW(i) (wst[i]==2 || (wst[i]==1 && wd[i] <= now))
#define DUET(k) (tst[k]==4 || (tst[k]==3 && td[k] <= now))

inline got(c) {         /* at the CAS that hands out */
   assert(!acked[q]);                                                  /* never after its ack, or drop */
   assert(NCO < 2 || !(gs[1-c]==q && gd[1-c] > now && !dead[1-c]));    /* never while leased to another */
   assert(glast[q] < n+1);                                             /* a token never twice */
   glast[q] = n+1; gs[c] = q; gd[c] = now+1
}

proctype Consumer(byte me) {
   byte q, x, n, o, d, e, k, s, mn, act, g; bool ok;
   do
   :: ok = false;
      if
      :: atomic { up[me] && DUET(0) -> k = 0; RDT(0) };
T4:      /* [T4] claim in the table */
         atomic { up[me] -> if :: EQT(k) -> got(me); tst[k]=3; tn[k]=n+1; to[k]=me; td[k]=now+1; ok=true; s=q; mn=n+1 :: else fi; k=0; e=0; CLR }
      :: atomic { up[me] && DUEW(0) -> k = 0; RDW(0) }; goto redeliver
#if W > 1
      :: atomic { up[me] && DUEW(1) -> k = 1; RDW(1) };
#endif
redeliver:
#ifdef M_DLOUT                                /* the deadline is a word of its own */
         atomic { up[me] -> if :: wseq[k]==q && wst[k]==x && wn[k]==n && wo[k]==o -> got(me); wst[k]=1; wn[k]=n+1; wo[k]=me; ok=true; s=q; mn=n+1 :: else fi; CLR };
         atomic { up[me] -> if :: ok -> wd[k] = now+1; gd[me] = now+1 :: else fi; k=0 }
#else
L2:      /* [L2] redelivery: what was given back, or whose lease expired */
         atomic { up[me] -> if :: EQW(k) -> got(me); wst[k]=1; wn[k]=n+1; wo[k]=me; wd[k]=now+1; ok=true; s=q; mn=n+1 :: else fi; k=0; CLR }
#endif
      :: atomic { up[me] && wseq[0]+W < LAST && wseq[0] < floor -> k = 0; RDW(0) }; goto fresh
#if W > 1
      :: atomic { up[me] && wseq[1]+W < LAST && wseq[1] < floor -> k = 1; RDW(1) };
#endif
fresh:
#ifdef M_DLOUT
         atomic { up[me] -> if :: wseq[k]==q && wst[k]==x && wn[k]==n && wo[k]==o -> q=q+W; n=0; got(me); wseq[k]=q; wst[k]=1; wn[k]=1; wo[k]=me; ok=true; s=q; mn=1 :: else fi; CLR };
         atomic { up[me] -> if :: ok -> wd[k] = now+1; gd[me] = now+1 :: else fi; k=0 }
#else
L1:      /* [L1] claim of a seq never handed out, in [floor, floor + W): the floor has passed the one before */
         atomic { up[me] -> if :: EQW(k) -> q=q+W; n=0; got(me); wseq[k]=q; wst[k]=1; wn[k]=1; wo[k]=me; wd[k]=now+1; ok=true; s=q; mn=1 :: else fi; k=0; CLR }
#endif
      fi;
      if
      :: ok ->
         /* 1 ack  2 release  3 extend, then ack  4 keep it until it expires */
         atomic { up[me] -> if :: act = 1 :: me == 0 && mn < NMAX -> act = 2 :: me == 0 && mn < NMAX && now < TMAX -> act = 3 :: me == 0 && now < TMAX -> act = 4
#ifdef AGAIN   /* [L2] its lease expired, and it is handed out to the same consumer again; the old token acks first */
               :: me == 0 && mn < NMAX && wseq[s%W] == s && wst[s%W] == 1 && wo[s%W] == me && wn[s%W] == mn && wd[s%W] <= now ->
                  act = 5; wn[s%W] = mn+1; wd[s%W] = now+1; glast[s] = mn+1; gd[me] = now+1
#endif
               fi };
         if
         :: act == 4 -> skip
         :: else ->
retry:
#ifdef M_TABLEFIRST
            atomic { up[me] -> k = 0; RDT(k) };
            if :: q == s && x == 3 && n == mn && o == me -> goto intable :: else fi;
#endif
            atomic { up[me] -> e = 0; RDW(s%W) };       /* the window first */
            if
#ifdef M_ACKNON
            :: q == s && x == 1 && o == me ->
#else
            :: q == s && x == 1 && n == mn && o == me ->
#endif
L3:            /* [L3] ack, [L4] release or extend, in the window */
               atomic { up[me] -> if :: EQW(s%W) ->
                     if :: act == 1 || act == 5 -> assert(glast[s]==mn && !acked[s]); acked[s]=true; wst[s%W]=0; wn[s%W]=0; wo[s%W]=0; wd[s%W]=0; ok=false; gs[me]=0; gd[me]=0
                        :: act == 2 -> assert(glast[s]==mn); wst[s%W]=2; wo[s%W]=0; wd[s%W]=0; ok=false; gs[me]=0; gd[me]=0
                        :: act == 3 -> if :: d < now+1 -> wd[s%W]=now+1; gd[me]=now+1 :: else fi; act = 1
                     fi
                  :: else fi; CLR };
               if :: ok -> goto retry :: else fi
            :: q == s && x == 3 -> k = d; g = n; goto attable
#ifndef M_TABLEFIRST
            :: q > s ->                       /* passed by the floor: in the table, live, or settled */
               atomic { up[me] -> k = 0; RDT(k) };
               if :: q == s && x == 3 && n == mn && o == me -> goto intable :: else fi
#endif
            :: else -> skip                   /* lease_lost */
            fi;
            goto done;
attable:    atomic { up[me] -> RDT(k) };      /* where the window points */
            if
            :: q == s && RESERVED(x) && NAMED(g) ->
T3c:           /* [T3] moved, but not live yet: helps */
               atomic { up[me] -> if :: EQT(k) -> LIVE(k) :: else fi; CLR };
               goto attable
            :: q == s && x == 3 && n == mn && o == me ->
intable:
T5:            /* [T5] ack, release, extend in the table */
               atomic { up[me] -> if :: EQT(k) ->
                     if :: act == 1 || act == 5 -> assert(glast[s]==mn && !acked[s]); acked[s]=true; FREET(k,tgen[k]); ok=false; gs[me]=0; gd[me]=0
                        :: act == 2 -> assert(glast[s]==mn); tst[k]=4; to[k]=0; td[k]=0; ok=false; gs[me]=0; gd[me]=0
                        :: act == 3 -> if :: d < now+1 -> td[k]=now+1; gd[me]=now+1 :: else fi; act = 1
                     fi
                  :: else fi; CLR };
               if :: ok -> goto retry :: else fi
            :: else -> skip                   /* lease_lost */
            fi;
done:
#ifdef AGAIN
            if :: act == 5 && ok -> act = 1; mn = mn+1; goto retry :: else fi;
#endif
            skip
         fi
      :: else
      fi;
      atomic { up[me] -> s=0; mn=0; act=0; ok=false; k=0; g=0; e=0; CLR; gs[me]=0; gd[me]=0 }
   od
}

/* Whoever needs room: moves the floor over what is settled or moved, evicts what is not. */
proctype Evictor(byte me) {
   byte q, x, n, o, d, e, f, k, g, fg; bool ok;
   do
#ifdef DROP
   :: atomic { up[me] && floor < LAST && wseq[floor%W] < floor -> f = floor; RDW(f%W) };
D2f:  /* [D2] never handed out: settled by the drop */
      atomic { up[me] -> if :: EQW(f%W) -> assert(floor == f && !acked[f]); acked[f]=true; wseq[f%W]=f; wst[f%W]=0; wn[f%W]=0; wo[f%W]=0; wd[f%W]=0 :: else fi };
      goto next
#endif
   :: atomic { up[me] && floor < LAST && wseq[floor%W] == floor -> f = floor; RDW(f%W) };
      if
      :: x == 0 ->
F1:      atomic { up[me] -> if :: floor == f -> floor = f+1 :: else fi }    /* [F1] */
      :: x == 3 -> atomic { k = d; g = n; CLR };
#ifndef M_FLOORNOCOMMIT
         atomic { up[me] -> RDT(k) };
         if :: q == f && RESERVED(x) && NAMED(g) ->
T3:         /* [T3] live before the floor passes it, if it is the reservation that the window names */
            atomic { up[me] -> if :: EQT(k) -> LIVE(k) :: else fi }
         :: else fi;
#endif
F1m:     atomic { up[me] -> if :: floor == f -> floor = f+1 :: else fi }    /* [F1] */
#ifdef DROP
      :: x == 2 ->
#ifdef M_DROPJUMP
         atomic { up[me] -> if :: floor == f -> acked[f]=true; floor = f+1 :: else fi }
#else
D2:      /* [D2] ready: settled by the drop */
         atomic { up[me] -> if :: EQW(f%W) -> assert(!acked[f]); acked[f]=true; wst[f%W]=0; wn[f%W]=0; wo[f%W]=0; wd[f%W]=0 :: else fi }
#endif
      :: x == 1 ->
#else
      :: x == 1 || x == 2 ->
#endif
#ifdef M_NORESERVE
         atomic { up[me] -> if :: EQW(f%W) && tst[0]==0 -> wst[f%W]=3; wn[f%W]=0; wo[f%W]=0; wd[f%W]=0; ok = true :: else ok = false fi };
         if :: ok -> atomic { up[me] -> ts[0]=q; tst[0]=x+2; tn[0]=n; to[0]=o; td[0]=d } :: else fi
#else
         if
         :: atomic { up[me] && tst[0]==0 -> k = 0; fg = td[k] };    /* a free entry, and its generation */
         :: atomic { up[me] && !EQW(f%W) -> goto next }
         fi;
T1:      /* [T1] reserve: a copy of the word, the generation raised by one */
#ifdef M_FREENOGEN
         atomic { up[me] -> if :: tst[k]==0 ->
#else
         atomic { up[me] -> if :: tst[k]==0 && td[k]==fg ->
#endif
                  g = fg+1; ts[k]=f; tst[k]=x; tn[k]=n; to[k]=o; td[k]=g; tev[k]=me; ok = true :: else ok = false fi; fg = 0 };
         if :: ok ->
            atomic { up[me] -> tgen[k] = g; tdl[k] = d };           /* relaxed stores, released by T2 */
T2:         /* [T2] the moment of the eviction */
            atomic { up[me] -> if :: EQW(f%W) -> wst[f%W]=3; wn[f%W]=g; wo[f%W]=0; wd[f%W]=k :: else ok = false fi };
            if
            :: ok ->
T3e:           /* [T3], if nobody did it before */
               atomic { up[me] -> if :: tst[k]==x && ts[k]==f && tev[k]==me && td[k]==g -> LIVE(k) :: else fi }
            :: else ->
T6:            /* [T6] cancelled by its evictor */
               atomic { up[me] -> if :: RESERVED(tst[k]) && ts[k]==f && tev[k]==me && td[k]==g -> FREET(k,g) :: else fi }
            fi
         :: else fi
#endif
      fi;
next: atomic { up[me] -> f=0; k=0; g=0; fg=0; e=0; ok=false; CLR }
   od
}

#ifdef M_CANCELLIVE
proctype Impatient() {  /* cancels a reservation whose evictor is not proven dead */
   byte q, x, n, o, d, e;
   atomic { RESERVED(tst[0]) -> RDT(0) };
   atomic { if :: EQT(0) && !(wseq[q%W]==q && wst[q%W]==3 && wd[q%W]==0) -> FREET(0,d) :: else fi }
}
#endif

proctype Killer() {     /* kills a consumer or an evictor at any step, or stops it for ever */
   byte k = 0;
   do
   :: k < KILLS ->
      if
      :: atomic { up[0] -> up[0] = false; dead[0] = true }
#ifdef STOPS
      :: atomic { up[0] -> up[0] = false }
#endif
#if NE > 0
      :: atomic { up[NCO] -> up[NCO] = false; dead[NCO] = true }
#endif
      :: break
      fi; k++
   :: else -> break
   od
}

proctype Clock() { do :: atomic { now < TMAX -> now++ } :: now == TMAX -> break od }

/* One at a time: the victim's lock is held. */
proctype Reclaimer() {
   byte p, i, k, q, x, n, o, d, e, g; bool named;
   do
   :: atomic { dead[0] && !gone[0] -> p = 0 }; goto work
#if NE > 0
   :: atomic { dead[NCO] && !gone[NCO] -> p = NCO };
#endif
work: i = 0;
      do                /* the window first, then the table */
      :: i < W ->
         atomic { RDW(i) };
         if :: x == 1 && o == p ->
L5:         atomic { if :: EQW(i) -> wst[i]=2; wo[i]=0; wd[i]=0; i++ :: else fi; CLR }   /* [L5] in the window */
         :: else -> atomic { i++; CLR } fi
      :: else -> break
      od;
#ifndef M_NORECLAIMTABLE
      k = 0;
      do
      :: k < TN ->
         atomic { RDT(k) };
         if
         :: x == 3 && o == p ->
T5r:        /* [T5] to ready, in the table */
            atomic { if :: EQT(k) -> tst[k]=4; to[k]=0; td[k]=0; k++ :: else fi; e=0; CLR }
         :: RESERVED(x) && (e == p || (o == p && OF_LIVING)) ->
            /* live if the window names it, else cancelled only if its evictor is dead */
            atomic { named = (wseq[q%W]==q && wst[q%W]==3 && wd[q%W]==k); g = (named -> wn[q%W] : 0) };
            if
            :: named && NAMED(g) ->
               atomic { if :: EQT(k) -> LIVE(k) :: else fi; g=0; named=false; e=0; CLR }       /* [T3] */
            :: else ->
T6r:           /* [T6] cancelled by reclaim, from exactly what was read before the look at the window */
#ifdef M_NOREREAD
               atomic { if :: EQT(k) && tev[k]==p -> FREET(k,d) :: else fi; k++; g=0; named=false; e=0; CLR }
#else
               atomic { if :: EQT(k) && tev[k]==p -> FREET(k,d); k++ :: EQT(k) && tev[k]!=p -> k++ :: else fi; g=0; named=false; e=0; CLR }
#endif
            fi
         :: else -> atomic { k++; e=0; CLR }
         fi
      :: else -> break
      od;
#endif
      atomic {          /* nothing of the dead is left */
      gone[p] = true; i = 0;
      do :: i < W -> assert(!(wst[i]==1 && wo[i]==p)); i++ :: else -> break od; i = 0;
      do :: i < TN -> assert(!(tst[i]==3 && to[i]==p)); assert(!(RESERVED(tst[i]) && tev[i]==p)); i++ :: else -> break od; i = 0; k = 0; p = 0 }
   od
}

proctype Monitor() {    /* when nothing can move any more */
   byte s, left, i;
   atomic { timeout ->
      s = FIRST;
      do :: s < LAST -> if :: !acked[s] -> left++ :: else fi; s++ :: else -> break od;
      /* who is up has acked all, but what a stopped holder still validly holds */
      if :: (NE == 0 || up[NCO] || NE > 1) && NCO > 1 ->
            if :: up[0] || dead[0] -> assert(left == 0) :: else -> assert(left <= 1) fi
         :: else fi;
      i = 0; do :: i < TN -> assert(tst[i] == 0 || !acked[ts[i]]); i++ :: else -> break od
   }
}

init { atomic { byte i;
   i=0; do :: i < W -> wseq[i] = i; i++ :: else -> break od;
   i=0; do :: i < NCO -> run Consumer(i); i++ :: else -> break od;
   i=0; do :: i < NE -> run Evictor(NCO+i); i++ :: else -> break od;
   run Reclaimer(); run Killer(); run Clock(); run Monitor();
#ifdef M_CANCELLIVE
   run Impatient();
#endif
} }
