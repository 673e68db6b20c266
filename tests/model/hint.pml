/* SPDX-License-Identifier: Apache-2.0
 *
 * When it is worth looking for what is due again: next_due_tick of a shared group. Who makes a message due lowers the
 * hint before and after [N1], the latter because the former may have been taken back. Who looks raises the
 * hint first [N2], then looks, then lowers it to the earliest that it found or left. The hint set ahead ends by
 * itself within a second in the code; here it does not, so that a message forgotten is an error.
 *
 *   hint: 0 look now 1 later    est: 1 leased 2 ready, due    (one entry for each giver)
 *
 * With KILL a giver is killed at any step; reclaim announces what it gives back, before and after.
 *
 * Wrong versions: M_LOOKFIRST, M_BEFOREONLY, M_NORECLAIMHINT.                                                */
byte hint = 1;
byte est[2] = 1;
bool up[2] = true, through[2];

inline announce() { atomic { up[me] -> hint = 0 } }     /* [N1] CAS-min */

proctype Giver(byte me) {
   announce();
L4: atomic { up[me] -> if :: est[me] == 1 -> est[me] = 2 :: else fi };            /* [L4] */
#ifndef M_BEFOREONLY
   announce();
#endif
   through[me] = true }

proctype Looker() { byte i, h, due;
end:
   do
   :: atomic { hint == 0 -> h = hint };
#ifndef M_LOOKFIRST
      atomic { if :: hint == h -> hint = 1 :: else fi };                         /* [N2] */
#endif
      i = 0; due = 0;
      do
      :: i < 2 ->
         if
         :: atomic { est[i] == 2 ->
L2:         est[i] = 0; i++; due++ }                                             /* [L2] handed out */
         :: atomic { est[i] == 2 -> i++; due++ }                                 /* no room for it: left */
         :: atomic { est[i] != 2 -> i++ }
         fi
      :: else -> break
      od;
#ifdef M_LOOKFIRST
      atomic { if :: due == 0 && hint == h -> hint = 1 :: else fi };             /* from what stood there before */
#else
      if :: due > 0 -> atomic { hint = 0 } :: else fi;                           /* [N1] more may be left */
#endif
      atomic { i = 0; h = 0; due = 0 }
   od }

#ifdef KILL
proctype Killer() {
   byte me = 0;
   if :: atomic { up[0] && !through[0] -> up[0] = false };
#ifndef M_NORECLAIMHINT
         atomic { hint = 0 };                                                    /* [N1] */
#endif
L5:      atomic { if :: est[0] == 1 -> est[0] = 2 :: else fi };                  /* [L5] */
#ifndef M_NORECLAIMHINT
         atomic { hint = 0 }                                                     /* [N1] */
#endif
      :: true -> skip
   fi }
#endif

proctype Monitor() { atomic { timeout -> assert(est[0] != 2); assert(est[1] != 2) } }   /* nothing due is forgotten */

init { atomic { run Giver(0); run Giver(1); run Looker(); run Looker(); run Monitor();
#ifdef KILL
   run Killer();
#endif
} }
