/* SPDX-License-Identifier: Apache-2.0
 *
 * Store buffers: what a process has stored may become visible to the others later than what it loads next
 * (x86). Each process has a buffer of one entry for the store that matters: it is private until it is flushed,
 * by itself at any time, and at the latest by the next full barrier (a fence, or any CAS). The process itself
 * would read its own store; none of these loads one. A kill is the same as not being scheduled: what stays in
 * the buffer may be flushed later or never seen.
 *
 * One of six parts is chosen by -D; each shows that the barriers at the labels named are needed:
 *   WAKE  publish, then look for a sleeper [P3] [W1]; announce, then look again [S1]
 *   PIN   pin [C1], fence, look at floor and head [C2]; move head [H2], fence [K0], look at the pins [K2]
 *   CLAIM pin [C1], claiming CAS [L1]; settle by another [L2] [L3], floor [F1], head [H2], [K0], [K2]
 *   PEEK  copy, fence, look at head [V1] against reuse [K3]
 *   VISIT a visit to a group [G5] against the new use of a removed group's entry [G4] [G6]
 *   BIRTH a group's floor and state [G1], epoch [G2], against a move of head [H1] [H2]
 *
 * Wrong versions: M_PLAINPUBLISH, M_PLAINANNOUNCE (WAKE), M_NOPINFENCE, M_NOK0, M_PLAINHEAD (PIN),
 * M_PLAINCLAIM (CLAIM), M_NOCOPYFENCE (PEEK), M_PLAINBIRTH (BIRTH),
 * M_NOVISITFENCE (VISIT).                                                                                     */

#ifdef WAKE
/* Producer: P3, W1. Waiter: S1, look, sleep. Two rounds, so that the flag is set and cleared again. */
#ifndef MSGS
#define MSGS 2
#endif
#ifndef NWAIT
#define NWAIT 2
#endif
byte tail = 0, cnt = 0; bool slp = false;       /* the shared memory */
bool asleep[NWAIT], fin[NWAIT];
byte pbuf = 0; bool wbuf[NWAIT];                /* the buffers: a new tail (0: none); slp = true */

active proctype ProducerBuffer() { end: do :: atomic { pbuf != 0 -> tail = pbuf; pbuf = 0 } od }
active proctype WaiterBuffers() { byte i; end: do
   :: atomic { wbuf[0] -> slp = true; wbuf[0] = false }
#if NWAIT > 1
   :: atomic { wbuf[1] -> slp = true; wbuf[1] = false }
#endif
   od }
#define DRAIN if :: pbuf != 0 -> tail = pbuf; pbuf = 0 :: else fi

active proctype Producer() { byte i; bool b;
  do
  :: i < MSGS ->
#ifdef M_PLAINPUBLISH
P3:  atomic { DRAIN; pbuf = i+1 };                      /* a release store: no barrier */
#else
P3:  atomic { DRAIN; tail = i+1 };                      /* [P3] a CAS: the buffer is empty after it */
#endif
W1:  atomic { b = slp };                                /* [W1] a relaxed load */
     if :: b ->
W2:     atomic { DRAIN; if :: slp -> slp = false; cnt++ :: else fi };      /* [W2] */
        atomic { asleep[0] = false;                     /* the system call; there is no other that moves the word */
#if NWAIT > 1
                 asleep[1] = false
#endif
               }
     :: else fi;
     i++
  :: else -> break
  od }

proctype Waiter(byte me) { byte seen, v; bool b;
  do
  :: seen == MSGS -> break
  :: else ->
     atomic { if :: tail > seen -> seen = tail :: else -> b = true fi };
     if :: b ->
#ifdef M_PLAINANNOUNCE
S1:     atomic { wbuf[me] = true; v = cnt };            /* a plain store of the flag */
#else
S1:     atomic { slp = true; v = cnt };                 /* [S1] fetch_or */
#endif
S2:     atomic { b = (tail == seen) };                  /* looks again */
        if :: b ->
S3:        atomic { if :: wbuf[me] -> slp = true; wbuf[me] = false :: else fi;   /* the system call is a barrier */
                    if :: cnt == v && slp -> asleep[me] = true :: else fi };
           !asleep[me]                                  /* sleeping for ever is the error: an invalid end state */
        :: else fi;
        atomic { b = false; v = 0 }
     :: else fi
  od }
init { atomic { byte i; do :: i < NWAIT -> run Waiter(i); i++ :: else -> break od } }
#endif

#ifdef PIN
/* The consumer pins chunk 0 for seq 0, twice; a mover drops that seq: floor [D1], head [H2]; a producer looks at
 * head and then at the pin, and writes. [K0] stands between two loads, of which the first may see what another
 * process moved: x86 keeps their order, the fence keeps the compiler and weaker processors from changing it; so
 * without it either may come first. M_PLAINHEAD: the producer moves floor and head itself, by stores. */
byte floor = 0, head = 0, rec = 1, pin = 0;
bool buf = false; byte bval;                            /* the consumer's buffer: one store to its pin */
bool hbuf = false;                                      /* the producer's buffer: floor and head */
active proctype Buffers() { end: do
   :: atomic { buf -> pin = bval; buf = false; bval = 0 }
   :: atomic { hbuf -> floor = 1; head = 1; hbuf = false }
   od }
#define DRAIN if :: buf -> pin = bval; buf = false; bval = 0 :: else fi
active proctype Consumer() { byte round; bool ok;
  do
  :: round < 2 ->
C1:  atomic { !buf -> buf = true; bval = 1 };           /* [C1] a release store: into the buffer */
#ifndef M_NOPINFENCE
     atomic { DRAIN };                                  /* the full fence of [C2] */
#endif
C2:  atomic { ok = (floor == 0) };                      /* [C2] floor, then head */
     atomic { ok = (ok && head == 0) };
     if :: ok ->
        assert(rec == 1);
        assert(rec == 1)
     :: else fi;
C3:  atomic { !buf -> buf = true; bval = 0 };           /* [C3] after the last read (x86 keeps loads before stores) */
     round++
  :: else -> break
  od }
#ifndef M_PLAINHEAD
active proctype Mover() {
D1: floor = 1;                                          /* [D1] [F1] a CAS */
H2: head = 1 }                                          /* [H2] a CAS */
#endif
active proctype Reuser() { bool ok; byte h;
#ifdef M_PLAINHEAD
   atomic { hbuf = true; h = 1 };
   ok = (pin == 0);
#elif defined(M_NOK0)
   if
   :: h = head; ok = (pin == 0)
   :: ok = (pin == 0); h = head
   fi;
#else
H0: h = head;                                           /* [H0], then the fence [K0] */
K2: ok = (pin == 0);                                    /* [K1] [K2] */
#endif
   if :: ok && h == 1 ->
K3:   atomic { if :: hbuf -> floor = 1; head = 1; hbuf = false :: else fi; rec = 2 }    /* [K3] a CAS, then writes */
   :: else fi }
#endif

#ifdef CLAIM
/* A shared group: A claims with a CAS after its pin. B takes over the lease when it expires (or claims first) and
 * acks; then floor and head pass. A claim by a plain store would leave the pin in the buffer. */
byte est = 0, eo = 0, en = 0, floor = 0, head = 0, rec = 1, pin[2];     /* entry: 0 never 1 leased 2 settled */
bool buf[2]; byte bval[2];
active proctype Buffers() { end: do
   :: atomic { buf[0] -> pin[0] = bval[0]; buf[0] = false; bval[0] = 0 }
   :: atomic { buf[1] -> pin[1] = bval[1]; buf[1] = false; bval[1] = 0 }
   od }
#define DRAIN if :: buf[me] -> pin[me] = bval[me]; buf[me] = false; bval[me] = 0 :: else fi
proctype Consumer(byte me) { byte x, n, round; bool ok;
  do
  :: round < 2 ->
     atomic { x = est; n = en };
     if :: x != 2 ->
C1:     atomic { !buf[me] -> buf[me] = true; bval[me] = 1 };            /* [C1] */
#ifdef M_PLAINCLAIM
L1:     atomic { ok = (est == x && en == n); if :: ok -> est = 1; en = n+1; eo = me :: else fi };  /* no barrier */
#else
L1:     atomic { DRAIN; ok = (est == x && en == n); if :: ok -> est = 1; en = n+1; eo = me :: else fi };  /* [L1] [L2] */
#endif
        if :: ok ->
           assert(rec == 1);
L3:        atomic {
#ifndef M_PLAINCLAIM
                    DRAIN;
#endif
                    if :: est == 1 && en == n+1 && eo == me -> est = 2 :: else fi };               /* [L3] */
           assert(rec == 1)                             /* held, lease or no lease */
        :: else fi;
C3:     atomic { !buf[me] -> buf[me] = true; bval[me] = 0 }             /* [C3] */
     :: else fi;
     atomic { x = 0; n = 0; ok = false; round++ }
  :: else -> break
  od }
active proctype Reuser() { bool ok;
   if
   :: atomic { est == 2 -> floor = 1 };                 /* [F1] */
H2:   head = 1;                                         /* [H2], then the fence [K0] */
      ok = (pin[0] == 0);                               /* [K1] [K2] */
      ok = (ok && pin[1] == 0);
      if :: ok ->
K3:      rec = 2 :: else fi                             /* [K3] */
   fi }
init { atomic { run Consumer(0); run Consumer(1) } }
#endif

#ifdef PEEK
/* A reader without lease or pin: copies two halves, then looks at head. On x86 loads stay in order; the fence keeps
 * the compiler, and weaker processors, from looking at head first: so without it the look may come before the copy. */
byte head = 0, ra = 1, rb = 1;
active proctype Peeker() { byte x, y, h;
#ifdef M_NOCOPYFENCE
   if
   :: h = head; x = ra; y = rb
   :: x = ra; h = head; y = rb
   :: x = ra; y = rb; h = head
   fi;
#else
   x = ra; y = rb;
V1: h = head;                                           /* [V1] after the full fence */
#endif
   if :: h == 0 -> assert(x == 1 && y == 1) :: else fi }
active proctype Reuser() {
H2: head = 1;                                           /* [H2] */
K3: ra = 2; rb = 2 }                                    /* [K3] and writes: stores stay behind the CAS */
#endif

#ifdef BIRTH
/* The creator's floor (a plain store) and state may lie in its buffer until the CAS on {head, epoch} [G2]. Then the
 * floor counts, and no head computed before it lands. M_PLAINBIRTH: a second look at head in the place of the CAS,
 * with nothing before it that empties the buffer. */
byte head = 0, epoch = 0, floor0 = 0, floor1 = 0; bool counts = false;  /* group 0 is there, 1 is being born */
bool buf = false; byte bval;                            /* the creator's buffer: floor1 and counts, in this order */
active proctype Buffer() { end: do :: atomic { buf -> floor1 = bval; counts = true; buf = false } od }
#define DRAIN if :: buf -> floor1 = bval; counts = true; buf = false :: else fi
active proctype Creator() { byte h, e; bool ok;
  do
  :: atomic { h = head; e = epoch };
     atomic { !buf -> buf = true; bval = h };
#ifdef M_PLAINBIRTH
     atomic { ok = (head == h) };
#else
G1:  atomic { DRAIN };                                  /* [G1] a CAS */
G2:  atomic { ok = (head == h && epoch == e); if :: ok -> epoch = e + 1 :: else fi };           /* [G2] */
#endif
     if :: ok -> break :: else -> atomic { DRAIN; counts = false } fi
  od;
  assert(head <= h);                                    /* the group exists, from seq h on */
  assert(head <= h) }
active proctype Mover() { byte h, e, m;
  do
  :: floor0 < 2 ->
     floor0++;                                          /* [F1] */
     atomic { h = head; e = epoch };                    /* [H1] */
     m = floor0;
     if :: atomic { counts && floor1 < m -> m = floor1 } :: atomic { !(counts && floor1 < m) } fi;
H2:  atomic { if :: m > h && head == h && epoch == e -> head = m :: else fi; h = 0; e = 0; m = 0 }   /* [H2] */
  :: else -> break
  od }
#endif

#ifdef VISIT
byte gst = 3, visiting = 0;                             /* 3 active 4 retired 1 used for another group */
bool buf = false; byte bval;                            /* the visitor's buffer */
active proctype Buffer() { end: do :: atomic { buf -> visiting = bval; buf = false; bval = 0 } od }
active proctype Visitor() { bool here;
G5: atomic { buf = true; bval = 1 };                    /* [G5] a release store: into the buffer */
#ifndef M_NOVISITFENCE
   atomic { if :: buf -> visiting = bval; buf = false; bval = 0 :: else fi };   /* and the full fence */
#endif
   here = (gst == 3);
   if :: here -> assert(gst != 1); assert(gst != 1) :: else fi;
   atomic { !buf -> buf = true; bval = 0 } }
active proctype Administrator() {
G4: gst = 4;                                            /* [G4] a CAS */
   do
   :: visiting == 0 -> break                            /* [G6] */
   od;
   gst = 1 }
#endif
