/* SPDX-License-Identifier: Apache-2.0
 *
 * A claim protects the bytes only while the group is there: a removed group's floor and straggler table hold
 * nothing back. So after the pin [C1] and the claiming CAS [L1] [T4] the claimer looks at the group again [L0]. The
 * pins are looked at after the group's word was seen retired.
 *
 * -DTABLE: the message is a straggler, head has passed it, and its table entry holds the chunk while the
 * group is active. Only assertions are checked: a kill at any step is the same as not being scheduled any more.
 *
 * Wrong versions: M_NOL0.                                                                                    */
byte gst = 3;                           /* 3 active 4 retired */
byte est = 0, head = 0, rec = 1, pin[2];

proctype Consumer(byte me) { bool ok;
   if
   :: atomic { gst == 3 -> skip };
C1:   pin[me] = 1;                                                              /* [C1] */
L1:   atomic { if :: est == 0 -> est = me + 1 :: else -> goto out fi };         /* [L1] [T4] */
#ifdef M_NOL0
      ok = true;
#else
L0:   atomic { ok = (gst == 3) };                                               /* [L0] */
#endif
      if :: ok -> assert(rec == 1); assert(rec == 1) :: else fi;
out:
C3:   pin[me] = 0                                                               /* [C3] */
   :: atomic { gst != 3 -> skip }
   fi }

proctype Remover() {
G4: gst = 4 }                                                                   /* [G4] */

proctype Reuser() { byte h; bool held;
#ifdef TABLE
   atomic { held = (gst == 3) };                                                /* [K5] live until settled */
#else
   atomic { gst == 4 -> h = 1 };                                                /* [H1] its floor does not count */
H2: head = 1;                                                                   /* [H2] */
   held = (head == 0);                                                          /* [H0], then the fence [K0] */
#endif
   if
   :: !held ->
      atomic { held = (pin[0] != 0) };                                          /* [K1] [K2] */
      atomic { held = (held || pin[1] != 0) };
      if :: !held ->
K3:      rec = 2                                                                /* [K3] */
         :: else
      fi
   :: else
   fi }

init { atomic { run Consumer(0); run Consumer(1); run Remover(); run Reuser() } }
