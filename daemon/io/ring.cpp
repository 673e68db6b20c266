// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/ring.hpp"

#include <cerrno>
#include <utility>

#include "base/assert.hpp"

namespace shmq::io {
namespace {

constexpr int operations_needed[] = {IORING_OP_OPENAT, IORING_OP_FALLOCATE, IORING_OP_WRITE,
                                     IORING_OP_FSYNC,  IORING_OP_RENAMEAT,  IORING_OP_UNLINKAT,
                                     IORING_OP_POLL_ADD};

Error unavailable(int error_number, std::string why) {
  return Error{{error_number, std::generic_category()}, "set io_uring up", std::move(why), ""};
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::create(unsigned entries) {
  std::unique_ptr<Ring> ring{new Ring};
  const int result = io_uring_queue_init(entries, &ring->ring_, 0);
  if (result < 0) return tl::unexpected{unavailable(-result, "")};
  ring->is_open_ = true;
  if ((ring->ring_.features & IORING_FEAT_NODROP) == 0) {
    return tl::unexpected{unavailable(ENOSYS, "the kernel drops completions when it is full")};
  }
  // Without it a sleep with a time limit would need an operation of its own.
  if ((ring->ring_.features & IORING_FEAT_EXT_ARG) == 0) {
    return tl::unexpected{unavailable(ENOSYS, "the kernel cannot wait with a time limit")};
  }
  io_uring_probe* probe = io_uring_get_probe_ring(&ring->ring_);
  bool has_all = probe != nullptr;
  for (const int operation : operations_needed) {
    has_all = has_all && io_uring_opcode_supported(probe, operation) != 0;
  }
  io_uring_free_probe(probe);
  if (!has_all) return tl::unexpected{unavailable(ENOSYS, "the kernel lacks an operation of it")};
  return ring;
}

Ring::~Ring() {
  if (!is_open_) return;
  submit();
  while (outstanding_ > 0) {
    if (!deliver(false) && io_uring_submit_and_wait(&ring_, 1) < 0 && errno != EINTR) break;
  }
  io_uring_queue_exit(&ring_);
}

void Ring::start(std::unique_ptr<Operation> operation,
                 const std::function<void(io_uring_sqe*, Operation&)>& prepare) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  for (int tries = 0; entry == nullptr && tries < 1000; ++tries) {
    submit();
    entry = io_uring_get_sqe(&ring_);
  }
  SHMQ_ASSERT(entry != nullptr);
  prepare(entry, *operation);
  io_uring_sqe_set_data(entry, operation.release());
  ++outstanding_;
}

// EBUSY and EAGAIN: the completion queue is full, or memory is short; poll() reaps, and tries
// again.
void Ring::submit() { io_uring_submit(&ring_); }

bool Ring::deliver(bool calls) {
  io_uring_cqe* completion = nullptr;
  if (io_uring_peek_cqe(&ring_, &completion) != 0 || completion == nullptr) return false;
  const std::unique_ptr<Operation> operation{
      static_cast<Operation*>(io_uring_cqe_get_data(completion))};
  const std::int64_t result = completion->res;
  io_uring_cqe_seen(&ring_, completion);
  --outstanding_;
  if (calls) operation->done(result);
  return true;
}

bool Ring::poll(bool wait) {
  submit();
  if (deliver(true)) return true;
  if (!wait || outstanding_ == 0) return false;
  io_uring_submit_and_wait(&ring_, 1);  // EINTR: the caller's loop comes again
  return deliver(true);
}

void Ring::sleep(std::uint64_t timeout_ns) {
  __kernel_timespec limit{};
  limit.tv_sec = static_cast<long long>(timeout_ns / 1'000'000'000);
  limit.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000);
  io_uring_cqe* ignored = nullptr;
  io_uring_submit_and_wait_timeout(&ring_, &ignored, 1, &limit, nullptr);  // ETIME, EINTR: as well
}

}  // namespace shmq::io
