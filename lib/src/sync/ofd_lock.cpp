// SPDX-License-Identifier: Apache-2.0
#include "sync/ofd_lock.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace shmq::sync {
namespace {

// Every lock descriptor of this process. The child of a fork closes them: a description that lives
// on in a child would be a proof of life of its dead parent.
class Registry {
 public:
  void add(int descriptor) {
    const std::lock_guard guard{mutex_};
    descriptors_.push_back(descriptor);
  }
  void close(int descriptor) {
    const std::lock_guard guard{mutex_};
    std::erase(descriptors_, descriptor);
    ::close(descriptor);
  }
  void before_fork() { mutex_.lock(); }
  void after_fork_in_parent() { mutex_.unlock(); }
  void after_fork_in_child() {
    current_fork_generation.fetch_add(1, std::memory_order_relaxed);  // the child has one thread
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
    mutex_.unlock();
  }

 private:
  std::mutex mutex_;
  std::vector<int> descriptors_;
};

Registry& registry() {
  static Registry* const instance = [] {
    auto made = std::make_unique<Registry>();
    static Registry* pointer = made.get();
    pthread_atfork([] { pointer->before_fork(); }, [] { pointer->after_fork_in_parent(); },
                   [] { pointer->after_fork_in_child(); });
    return made.release();  // never destroyed: handles may be closed by static destructors
  }();
  return *instance;
}

thread_local bool are_private = false;

bool set_lock(int descriptor, short type, std::uint64_t byte) noexcept {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return fcntl(descriptor, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

LockFile::LockFile(int descriptor) noexcept : descriptor_(descriptor), born_(fork_generation()) {
  if (descriptor_ >= 0 && !are_private) registry().add(descriptor_);
}

void descriptors_are_private() noexcept { are_private = true; }

bool LockFile::try_lock(std::uint64_t byte) noexcept {
  return descriptor_ >= 0 && set_lock(descriptor_, F_WRLCK, byte);
}

void LockFile::unlock(std::uint64_t byte) noexcept {
  if (descriptor_ >= 0) set_lock(descriptor_, F_UNLCK, byte);
}

bool LockFile::is_held_elsewhere(std::uint64_t byte) const noexcept {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return fcntl(descriptor_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

void LockFile::close() noexcept {
  if (descriptor_ < 0) return;
  if (born_ == fork_generation()) registry().close(descriptor_);
  descriptor_ = -1;
}

}  // namespace shmq::sync
