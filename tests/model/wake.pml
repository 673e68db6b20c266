/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleep and wake over one futex word {cnt, slp: somebody sleeps}. A waiter sets slp and takes the value [S1],
 * looks again, sleeps on that value. A publisher publishes [P3], looks at slp [W1], and if it is set moves the
 * word to {cnt + 1, 0} [W2] and wakes all.
 *
 * -DKILL: waiter 0 may be killed at any step; -DKILLP: or producer 2, also between [W2] and the system call,
 * which only the capped sleep (-DCAP) makes good. When nothing moves any more, no message may lie there while
 * somebody who could take it sleeps.
 *
 * Wrong versions: M_RECHECKFIRST, M_READLATE, with KILL: M_NOBUMP, M_WAKE1, M_COUNTER; KILLP without CAP.      */
#ifndef MSGS
#define MSGS 2
#endif
byte pub = 0, taken = 0, waiters = 0, cnt = 0; bool slp = false;
bool asleep[2] = false, up[4] = true; byte capped = 0;
inline wake() {
#ifdef M_WAKE1
  atomic { up[me] -> if :: asleep[0] -> asleep[0] = false :: asleep[1] -> asleep[1] = false :: else fi }
#else
  atomic { up[me] -> asleep[0] = false; asleep[1] = false }
#endif
}
proctype Producer(byte me) { byte i = 0; bool b;
  do
  :: i < MSGS/2 + MSGS%2 ->
P3:  atomic { up[me] -> pub++; i++ };                    /* [P3] and a full barrier */
#ifdef M_COUNTER                                         /* a count of sleepers, and an event word beside it */
W1:  atomic { up[me] -> b = (waiters > 0) };
     if :: b -> atomic { up[me] -> cnt++ }; wake() :: else fi
#else
W1:  atomic { up[me] -> b = slp };                       /* [W1] */
     if :: b ->
#ifdef M_NOBUMP
        atomic { up[me] -> slp = false };
#else
W2:     atomic { up[me] -> if :: slp -> cnt++; slp = false :: else -> b = false fi };   /* [W2] */
#endif
        if :: b -> wake() :: else fi                     /* the system call, by whoever moved the word */
     :: else fi
#endif
  :: else -> break
  od }
proctype Waiter(byte me) { byte v; bool got;
  do
  :: atomic { up[me] && taken < pub -> taken++ }         /* takes one */
  :: atomic { up[me] && taken >= pub && taken < MSGS -> got = false };
#ifdef M_RECHECKFIRST
     atomic { up[me] -> got = (taken < pub) };
#endif
#ifdef M_COUNTER
     atomic { up[me] -> waiters++ };
     atomic { up[me] -> v = cnt };
#elif defined(M_READLATE)
     atomic { up[me] -> slp = true };
#else
S1:  atomic { up[me] -> slp = true; v = cnt };           /* [S1] fetch_or gives the value */
#endif
#ifndef M_RECHECKFIRST
S2:  atomic { up[me] -> got = (taken < pub || taken >= MSGS) };   /* looks again */
#endif
#ifdef M_READLATE
     atomic { up[me] -> v = cnt };
#endif
     if :: !got ->
#ifdef M_COUNTER
        atomic { up[me] -> if :: cnt == v -> asleep[me] = true :: else fi };
#elif defined(M_READLATE)
        atomic { up[me] -> if :: cnt == v -> asleep[me] = true :: else fi };
#else
        /* futex_wait: the kernel compares the whole word with the ticket */
S3:     atomic { up[me] -> if :: cnt == v && slp -> asleep[me] = true :: else fi };
#endif
        atomic { up[me] && !asleep[me] -> skip }
     :: else fi;
#ifdef M_COUNTER
     atomic { up[me] -> waiters-- };
#endif
     v = 0
  od }
proctype Killer() {
#ifdef KILL
  if :: atomic { up[0] -> up[0] = false }
#ifdef KILLP
     :: atomic { up[2] -> up[2] = false }
#endif
     :: skip fi
#else
  skip
#endif
}
proctype Monitor() {
  do
  :: atomic { timeout ->
     if
     :: taken < pub && ((up[1] && asleep[1]) || (up[0] && asleep[0])) ->
#ifdef CAP
        capped++; asleep[1] = false; asleep[0] = false; assert(capped <= 4)
#else
        assert(false)      /* a message waits and who could take it sleeps */
#endif
     :: else ->
        assert(taken == pub || (!up[0] && !up[1]));      /* nobody was left behind with a message there */
#ifdef M_COUNTER
        assert(waiters == (up[0] && asleep[0]) + (up[1] && asleep[1]));   /* else every publish pays for the dead */
#endif
        break
     fi }
  od }
init { atomic { run Producer(2); run Producer(3); run Waiter(0); run Waiter(1); run Killer(); run Monitor() } }
