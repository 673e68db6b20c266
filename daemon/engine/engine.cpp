// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/engine.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <tuple>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "base/names.hpp"
#include "daemon/engine/recovery.hpp"

namespace shmq::engine {
namespace {

namespace fs = std::filesystem;

// No queue's name begins with a dot.
constexpr const char* removed_prefix = ".removed.";
constexpr const char* restoring_prefix = ".restoring.";
constexpr std::uint64_t retry_busy_ns = 10'000'000;
constexpr std::uint64_t retry_no_room_ns = 1'000'000'000;
constexpr int files_removed_per_turn = 4;
// A queue without traffic is looked at for messages so often: within the second in which a `memory`
// publish is promised to be on disk, and a thousand of them cost little. Whoever cannot wait rings.
constexpr std::uint64_t cold_sweep_ns = 800'000'000;
constexpr std::uint64_t patient_rounds = 2;  // a queue without traffic is looked at for who came

Error system_error(const std::string& what, const std::string& remedy = "") {
  return Error{{errno, std::generic_category()}, what, "", remedy};
}

Error told(Errc code, const std::string& what, std::string why, std::string remedy) {
  return Error{make_error_code(code), what, std::move(why), std::move(remedy)};
}

std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t bytes = 0;
  std::error_code ended;
  for (fs::directory_iterator at{directory, ended}, end; !ended && at != end; at.increment(ended)) {
    std::error_code failed;
    const std::uint64_t size = at->file_size(failed);
    if (!failed) bytes += size;
  }
  return bytes;
}

Error draining(const std::string& what) {
  return told(Errc::daemon_away, what, "the daemon is about to end", "start it again");
}

}  // namespace

// --- Beginning and end -------------------------------------------------------------------------

Engine::Engine(EngineOptions options, loop::Loop& loop, const io::Backend& backend, Log log)
    : options_(std::move(options)), loop_(loop), backend_(backend), log_(std::move(log)) {}

Result<std::unique_ptr<Engine>> Engine::create(EngineOptions options, loop::Loop& loop,
                                               const io::Backend& backend, Log log) {
  if (!base::is_valid_name(options.name_space)) {
    return tl::unexpected{told(Errc::invalid_name, "serve namespace '" + options.name_space + "'",
                               "not a valid name", "use [a-z0-9][a-z0-9._-]{0,63}")};
  }
  std::unique_ptr<Engine> engine{new Engine(std::move(options), loop, backend, std::move(log))};
  for (auto* helper : {&engine->recoverer_, &engine->maker_}) {
    auto made = loop::Helper::create(loop);
    if (!made) return tl::unexpected{made.error()};
    *helper = std::move(*made);
  }
  if (auto done = engine->take_directory(); !done) return tl::unexpected{done.error()};
  if (auto done = engine->find_queues(); !done) return tl::unexpected{done.error()};
  return engine;
}

Engine::~Engine() {
  recoverer_.reset();
  maker_.reset();
  restore_.reset();
  if (restore_event_ >= 0) {
    loop_.unwatch(restore_event_);
    ::close(restore_event_);
  }
  watches_.clear();
  queues_.clear();
  if (directory_descriptor_ >= 0) ::close(directory_descriptor_);
  if (lock_ >= 0) ::close(lock_);
}

Result<void> Engine::take_directory() {
  const std::string what = "use the data directory '" + options_.data_dir + "'";
  std::error_code code;
  fs::create_directories(options_.data_dir, code);
  const fs::path absolute = fs::absolute(options_.data_dir, code);
  directory_ = (absolute / options_.name_space).lexically_normal().string();
  // Whatever the umask: the directory of each queue says who may read its journal.
  const bool is_ours = ::mkdir(directory_.c_str(), 0755) == 0;
  if ((!is_ours && errno != EEXIST) || (is_ours && ::chmod(directory_.c_str(), 0755) != 0)) {
    return tl::unexpected{system_error(what, "make it, or name another one: --data-dir")};
  }
  directory_descriptor_ = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_descriptor_ < 0) return tl::unexpected{system_error(what)};
  struct stat status {};
  if (::fstat(directory_descriptor_, &status) != 0) return tl::unexpected{system_error(what)};
  if ((status.st_uid != ::geteuid() && status.st_uid != 0) || (status.st_mode & 022) != 0) {
    return tl::unexpected{told(Errc::no_permission, what,
                               "others than the daemon's user may write '" + directory_ + "'",
                               "make it the daemon's own, mode 0755")};
  }
  lock_ = ::openat(directory_descriptor_, "daemon.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                   0600);
  if (lock_ < 0) return tl::unexpected{system_error(what)};
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    return tl::unexpected{told(
        Errc::busy, what, "another daemon serves namespace '" + options_.name_space + "' from it",
        "stop it, or use another --namespace")};
  }
  // The names up to here, too, before a queue is confirmed in it.
  for (const std::string& path : {options_.data_dir, directory_}) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = descriptor >= 0 && ::fsync(descriptor) == 0;
    const Error error = system_error(what);
    if (descriptor >= 0) ::close(descriptor);
    if (!is_synced) return tl::unexpected{error};
  }
  return {};
}

Result<void> Engine::find_queues() {
  std::error_code code;
  std::map<std::string, std::uint64_t> bytes;
  std::vector<std::string> cut_short;  // of restores: nobody was told that they had worked
  fs::directory_iterator entries{directory_, code};
  for (; !code && entries != fs::directory_iterator{}; entries.increment(code)) {
    const std::string name = entries->path().filename().string();
    std::error_code ignored;
    if (entries->symlink_status(ignored).type() != fs::file_type::directory) continue;
    if (name.starts_with(removed_prefix)) {
      garbage_.push_back(entries->path().string());
    } else if (name.starts_with(restoring_prefix)) {
      cut_short.push_back(entries->path().string());
    } else if (base::is_valid_queue_name(name)) {
      waiting_.push_back({.name = name, .not_before_ns = 0, .why = {}});
      bytes[name] = bytes_in(entries->path());
    } else if (name != "lost+found") {
      log_(Level::warning, "'" + entries->path().string() + "' is not the directory of a queue");
    }
  }
  if (code) {
    return tl::unexpected{Error{code, "list directory '" + directory_ + "'", "", ""}};
  }
  // The smallest first: nobody waits for a queue that is larger than theirs.
  std::sort(waiting_.begin(), waiting_.end(), [&](const Waiting& a, const Waiting& b) {
    return std::tie(bytes[a.name], a.name) < std::tie(bytes[b.name], b.name);
  });
  // A removal that was cut short: the directory has its other name, and the segment may be there.
  for (const std::string& path : garbage_) {
    const std::string tail =
        fs::path{path}.filename().string().substr(std::string_view{removed_prefix}.size());
    const std::string name = tail.substr(0, tail.rfind(':'));
    if (!base::is_valid_queue_name(name) || fs::exists(path_of(name), code)) continue;
    forget_memory(name);
  }
  garbage_.insert(garbage_.end(), cut_short.begin(), cut_short.end());
  return {};
}

// Of a durable queue that has no directory any more, and that no other daemon serves.
void Engine::forget_memory(const std::string& name) {
  const OpenOptions open{.name_space = options_.name_space,
                         .trusted_owners = options_.trusted_owners};
  auto segment = shm::Segment::open(name, open, shm::Authority::daemon);
  if (!segment || (*segment)->limits().durable == 0) return;
  if (auto lock = (*segment)->open_lock_file(); lock && !lock->try_lock(shm::lock_byte_daemon)) {
    return;
  }
  if (auto removed = shm::Segment::remove(name, open, shm::Authority::daemon); !removed) {
    log_(Level::warning, removed.error().message());
  }
}

std::string Engine::path_of(const std::string& name) const { return directory_ + "/" + name; }

// --- Recovery ----------------------------------------------------------------------------------

void Engine::recover_next(std::uint64_t now_ns) {
  if (recoverer_->outstanding() != 0) return;
  const auto next = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) {
    return waiting.not_before_ns <= now_ns;
  });
  if (next == waiting_.end()) return;
  Waiting waiting = std::move(*next);
  waiting_.erase(next);
  RecoveryOptions options{.name_space = options_.name_space,
                          .name = waiting.name,
                          .directory = path_of(waiting.name),
                          .check_bytes = options_.check_bytes,
                          .first_file_bytes = options_.journal.files.first_file_bytes,
                          .trusted_owners = options_.trusted_owners};
  in_recovery_.insert(waiting.name);
  recoverer_->run([this, waiting = std::move(waiting), options = std::move(options)] {
    auto told = std::make_shared<std::vector<std::pair<Level, std::string>>>();
    auto parts = std::make_shared<Result<QueueParts>>(recover_queue(
        backend_, options,
        [told](Level level, const std::string& sentence) { told->emplace_back(level, sentence); }));
    return [this, waiting, told, parts] {
      for (const auto& [level, sentence] : *told) log_(level, sentence);
      on_recovered(waiting, std::move(*parts));
    };
  });
}

void Engine::on_recovered(Waiting waiting, Result<QueueParts> parts) {
  in_recovery_.erase(waiting.name);
  if (parts) return serve(waiting.name, std::move(*parts));
  const Error& error = parts.error();
  if (is_draining_) return;  // it is for the next start to say what is wrong
  if (error == Errc::busy) {
    // The kernel may be writing for a daemon that was killed; or there is another one.
    if (waiting.why.empty()) log_(Level::warning, error.message() + "; trying again");
    waiting.why = error.why();
    waiting.not_before_ns = base::clock->monotonic_ns() + retry_busy_ns;
    waiting_.push_back(std::move(waiting));
    return;
  }
  if (error.code() == std::errc::no_space_on_device) {
    // As for a queue that is served: goes on by itself when there is room.
    if (!waiting.is_for_room) {
      log_(Level::warning,
           error.message() + "; nothing is lost, tried again every second (make room on it)");
    }
    waiting.is_for_room = true;
    waiting.why = "no room on the disk for its next journal file";
    waiting.not_before_ns = base::clock->monotonic_ns() + retry_no_room_ns;
    waiting_.push_back(std::move(waiting));
    return;
  }
  if (error == Errc::no_such_queue) {
    log_(Level::info, "queue '" + waiting.name + "': its creation was cut short; removed");
    if (auto done = bury(waiting.name); !done) refuse(waiting.name, done.error());
    return;
  }
  refuse(waiting.name, error);
}

void Engine::serve(const std::string& name, QueueParts parts) {
  auto queue = ManagedQueue::create(std::move(parts), options_.journal, options_.doorbell_path,
                                    log_, [this](ManagedQueue& hot) { make_hot(hot); });
  if (!queue) return refuse(name, queue.error());
  refused_.erase(name);
  const shm::Segment& segment = (*queue)->segment();
  queues_[name] = std::move(*queue);
  watches_[name] = std::make_unique<DeathWatch>(loop_, segment);
  watches_[name]->look();
  set_sweep_order();
  const QueueFigures figures = queues_[name]->figures();
  log_(Level::info, "queue '" + name + "': served, from seq " + std::to_string(figures.watermark));
  if (is_draining_) queues_[name]->begin_drain();
}

void Engine::refuse(const std::string& name, const Error& error) {
  log_(Level::error, error.message());
  refused_.insert_or_assign(name, error);
}

// --- Creation and removal ----------------------------------------------------------------------

// May a queue of this name be made now?
Result<void> Engine::check_free(const std::string& name, const std::string& what) const {
  if (is_draining_) return tl::unexpected{draining(what)};
  if (!base::is_valid_queue_name(name)) {
    return tl::unexpected{told(Errc::invalid_name, what, "'" + name + "' is not a valid queue name",
                               "use [a-z0-9][a-z0-9._-]{0,63}, not ending in .lock or .mark")};
  }
  if (const auto refused = refused_.find(name); refused != refused_.end()) {
    return tl::unexpected{
        told(Errc::already_exists, what,
             "a queue of this name exists and is refused: " + refused->second.why(),
             refused->second.remedy())};
  }
  if (restore_ != nullptr && restore_->request().name == name) {
    return tl::unexpected{
        told(Errc::already_exists, what, "a queue of this name is being restored", "wait for it")};
  }
  std::error_code ignored;
  if (queues_.contains(name) || fs::exists(fs::symlink_status(path_of(name), ignored))) {
    return tl::unexpected{told(Errc::already_exists, what, "a queue of this name exists",
                               "remove it first, or use it as it is with --if-not-exists")};
  }
  // A transient one, or what a daemon with another data directory left.
  const OpenOptions open{.name_space = options_.name_space,
                         .trusted_owners = options_.trusted_owners};
  const auto segment = shm::Segment::open(name, open, shm::Authority::daemon);
  if (segment && (*segment)->limits().durable == 0) {
    return tl::unexpected{told(Errc::already_exists, what, "a transient queue of this name exists",
                               "remove it first, or choose another name")};
  }
  return {};
}

void Engine::create_queue(const std::string& name, const QueueOptions& options, Outcome outcome) {
  const std::string what = "create queue '" + name + "'";
  const auto fail = [&](const Error& error) { outcome(tl::unexpected{error}); };
  if (auto free = check_free(name, what); !free) return fail(free.error());
  const std::string path = path_of(name);
  if (auto made = make_directory(path, options); !made) return fail(made.error());
  SHMQ_CRASH_POINT("daemon.directory_made");
  in_creation_.insert(name);
  RecoveryOptions recovery{.name_space = options_.name_space,
                           .name = name,
                           .directory = path,
                           .check_bytes = 0,
                           .first_file_bytes = options_.journal.files.first_file_bytes,
                           .trusted_owners = options_.trusted_owners};
  maker_->run([this, options, recovery = std::move(recovery), outcome = std::move(outcome)] {
    auto parts = std::make_shared<Result<QueueParts>>([&]() -> Result<QueueParts> {
      // Before anything in it counts.
      if (::fsync(directory_descriptor_) != 0) {
        return tl::unexpected{system_error("create queue '" + recovery.name + "'")};
      }
      return make_queue(backend_, recovery, options);
    }());
    return
        [this, name = recovery.name, outcome, parts] { on_made(name, outcome, std::move(*parts)); };
  });
}

void Engine::on_made(const std::string& name, Outcome outcome, Result<QueueParts> parts) {
  const auto fail = [&](const Error& error) { outcome(tl::unexpected{error}); };
  in_creation_.erase(name);
  if (!parts) {
    // A transient queue of this name is not ours to remove.
    forget_memory(name);
    if (auto done = bury(name); !done) log_(Level::warning, done.error().message());
    return fail(parts.error());
  }
  serve(name, std::move(*parts));
  if (const auto refused = refused_.find(name); refused != refused_.end()) {
    return fail(refused->second);
  }
  creations_.push_back({.name = name, .outcome = std::move(outcome)});
}

void Engine::answer_creations() {
  for (auto at = creations_.begin(); at != creations_.end();) {
    const auto queue = queues_.find(at->name);
    const bool is_gone = queue == queues_.end();
    const bool is_waiting =
        in_recovery_.contains(at->name) ||
        std::any_of(waiting_.begin(), waiting_.end(),
                    [&](const Waiting& waiting) { return waiting.name == at->name; });
    if (is_waiting || (!is_gone && !queue->second->is_served() && !is_drained())) {
      ++at;
      continue;
    }
    Creation creation = std::move(*at);
    at = creations_.erase(at);
    if (!is_gone && queue->second->is_served()) {
      creation.outcome({});
    } else if (const auto refused = refused_.find(creation.name); refused != refused_.end()) {
      creation.outcome(tl::unexpected{refused->second});
    } else {
      creation.outcome(tl::unexpected{told(Errc::removed, "create queue '" + creation.name + "'",
                                           "it was given up before its journal began", "")});
    }
  }
}

// --- Restoring -----------------------------------------------------------------------------------

void Engine::restore_queue(const std::string& name, int backup,
                           std::function<Result<void>(QueueOptions&)> adjust, Outcome outcome) {
  const std::string what = "restore queue '" + name + "'";
  const auto fail = [&](const Error& error) {
    ::close(backup);
    outcome(tl::unexpected{error});
  };
  if (auto free = check_free(name, what); !free) return fail(free.error());
  if (restore_ != nullptr) {
    return fail(told(Errc::busy, what, "queue '" + restore_->request().name + "' is being restored",
                     "try again when that is done"));
  }
  if (restore_event_ < 0) {
    restore_event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const auto watched = restore_event_ < 0 ? Result<void>{tl::unexpected{system_error(what)}}
                                            : loop_.watch(restore_event_, EPOLLIN, [this](auto) {
                                                std::uint64_t count = 0;
                                                if (::read(restore_event_, &count, 8) == 8) {
                                                  finish_restore();
                                                }
                                              });
    if (!watched) return fail(watched.error());
  }
  const std::string directory =
      directory_ + "/" + restoring_prefix + name + ":" + std::to_string(base::clock->realtime_ns());
  restore_outcome_ = std::move(outcome);
  restore_ = std::make_unique<RestoreJob>(RestoreRequest{.name_space = options_.name_space,
                                                         .name = name,
                                                         .directory = directory,
                                                         .backup = backup,
                                                         .adjust = std::move(adjust)},
                                          [event = restore_event_] {
                                            const std::uint64_t one = 1;
                                            if (::write(event, &one, sizeof(one)) != sizeof(one)) {
                                              // Full: then it is readable already.
                                            }
                                          });
  log_(Level::info, "queue '" + name + "': being restored from a backup");
}

// The moment of a restore: from the rename on the queue exists.
void Engine::finish_restore() {
  if (restore_ == nullptr || !restore_->is_done()) return;
  const std::unique_ptr<RestoreJob> job = std::move(restore_);
  const Outcome outcome = std::exchange(restore_outcome_, {});
  const std::string& name = job->request().name;
  const std::string what = "restore queue '" + name + "'";
  const auto fail = [&](const Error& error) {
    log_(Level::warning, error.message());
    std::error_code ignored;
    if (fs::exists(job->request().directory, ignored)) garbage_.push_back(job->request().directory);
    outcome(tl::unexpected{error});
  };
  if (!job->outcome()) return fail(job->outcome().error());
  // Nobody made one meanwhile: create_queue() asks restore_, which is out of the way now.
  if (auto free = check_free(name, what); !free) return fail(free.error());
  SHMQ_CRASH_POINT("daemon.before_restored");
  if (::rename(job->request().directory.c_str(), path_of(name).c_str()) != 0 ||
      ::fsync(directory_descriptor_) != 0) {
    return fail(system_error(what));
  }
  // What lies in memory under its name is of a queue that is gone.
  forget_memory(name);
  waiting_.push_back({.name = name, .not_before_ns = 0, .why = {}});
  creations_.push_back({.name = name, .outcome = outcome});
}

// The moment of a removal: from here on the queue is gone.
Result<void> Engine::bury(const std::string& name) {
  const std::string from = path_of(name);
  std::string to;
  std::error_code ignored;
  do {
    to = directory_ + "/" + removed_prefix + name + ":" +
         std::to_string(base::clock->realtime_ns()) + std::to_string(burials_++);
  } while (fs::exists(fs::symlink_status(to, ignored)));
  if (::rename(from.c_str(), to.c_str()) != 0 || ::fsync(directory_descriptor_) != 0) {
    return tl::unexpected{system_error("remove directory '" + from + "'")};
  }
  garbage_.push_back(to);
  return {};
}

void Engine::remove_queue(const std::string& name, Outcome outcome) {
  const std::string what = "remove queue '" + name + "'";
  const auto fail = [&](const Error& error) { outcome(tl::unexpected{error}); };
  if (is_draining_) return fail(draining(what));
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const Waiting& w) { return w.name == name; });
  if ((waiting != waiting_.end() && !waiting->is_for_room) || in_recovery_.contains(name)) {
    return fail(told(Errc::busy, what, "it is being recovered", "try again"));
  }
  if (in_creation_.contains(name)) {
    return fail(told(Errc::busy, what, "it is being created", "try again"));
  }
  const auto served = queues_.find(name);
  if (served == queues_.end() && !refused_.contains(name) && waiting == waiting_.end()) {
    return fail(told(Errc::no_such_queue, what, "no such durable queue", ""));
  }
  if (auto done = bury(name); !done) return fail(done.error());
  SHMQ_CRASH_POINT("daemon.buried");
  refused_.erase(name);
  if (waiting != waiting_.end()) waiting_.erase(waiting);
  // Kept until the names are gone: the lock keeps others from taking the segment for theirs.
  std::unique_ptr<ManagedQueue> queue;
  if (served != queues_.end()) {
    watches_.erase(name);
    queue = std::move(served->second);
    queues_.erase(served);
    std::erase(hot_, queue.get());
    set_sweep_order();
    queue->close();
  }
  const OpenOptions open{.name_space = options_.name_space,
                         .trusted_owners = queue != nullptr
                                               ? std::vector<uid_t>{queue->segment().owner()}
                                               : options_.trusted_owners};
  auto removed = shm::Segment::remove(name, open, shm::Authority::daemon);
  SHMQ_CRASH_POINT("daemon.removed");
  if (!removed && !(removed.error() == Errc::no_such_queue)) return fail(removed.error());
  log_(Level::info, "queue '" + name + "': removed");
  outcome({});
}

// A few files a turn: a long journal must not keep the other queues waiting.
void Engine::collect_garbage() {
  if (garbage_.empty()) return;
  const std::string path = garbage_.back();
  std::error_code code;
  int removed = 0;
  for (fs::directory_iterator at{path, code}, end;
       !code && at != end && removed < files_removed_per_turn; at.increment(code)) {
    std::error_code failed;
    fs::remove_all(at->path(), failed);
    if (failed) {
      log_(Level::warning, "cannot remove '" + at->path().string() + "': " + failed.message() +
                               "; tried again at the next start");
      garbage_.pop_back();
      return;
    }
    ++removed;
  }
  if (!code && removed == files_removed_per_turn) return;
  garbage_.pop_back();
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) {
    log_(Level::warning, "cannot remove '" + path + "': " + system_error("").why() +
                             "; tried again at the next start");
  }
}

// --- Turns -------------------------------------------------------------------------------------

void Engine::make_hot(ManagedQueue& queue) {
  was_active_ = true;
  if (queue.is_hot) return;
  queue.is_hot = true;
  hot_.push_back(&queue);
}

void Engine::rung(const std::string& name) {
  if (const auto queue = queues_.find(name); queue != queues_.end()) return queue->second->wake();
  // Somebody who does not know the protocol's finer points, or a queue that is just being removed.
  if (!base::is_valid_queue_name(name)) next_sweep_ns_ = 0;
}

void Engine::set_timing(std::uint64_t sweep_ns, std::uint64_t spin_ns) noexcept {
  options_.sweep_ns = sweep_ns;
  options_.spin_ns = spin_ns;
}

void Engine::set_sweep_order() {
  swept_.clear();
  for (const auto& [name, queue] : queues_) {
    swept_.push_back({.queue = queue.get(), .watch = watches_.at(name).get()});
  }
}

// Those with traffic each time, and of all the others a part, one after the other: a queue that is
// not looked at is not even passed by.
void Engine::sweep(std::uint64_t now_ns) {
  next_sweep_ns_ = now_ns + options_.sweep_ns;
  for (std::size_t i = 0; i < hot_.size(); ++i) {
    if (hot_[i]->has_news() && !base::mutant(96)) hot_[i]->wake();
    // Whoever takes part in a queue with traffic is watched soon, the others within two seconds.
    watches_.at(hot_[i]->name())->look();
  }
  const std::uint64_t sweeps = std::max<std::uint64_t>(1, cold_sweep_ns / options_.sweep_ns);
  const std::size_t part = (swept_.size() + sweeps - 1) / sweeps;
  for (std::size_t i = 0; i < part && i < swept_.size(); ++i) {
    if (next_swept_ >= swept_.size()) {
      next_swept_ = 0;
      ++rounds_;
    }
    const Swept& each = swept_[next_swept_];
    if (!each.queue->is_hot && each.queue->has_news() && !base::mutant(96)) each.queue->wake();
    if ((next_swept_ + rounds_) % patient_rounds == 0) {
      each.watch->look();
      each.queue->tend(now_ns);
    }
    ++next_swept_;
  }
}

void Engine::look_at_hot() {
  for (std::size_t i = 0; i < hot_.size(); ++i) {
    if (!hot_[i]->is_writing() && hot_[i]->has_news()) hot_[i]->wake();
  }
}

void Engine::stop_damaged() {
  for (ManagedQueue* queue : std::vector<ManagedQueue*>{hot_}) {
    const std::optional<Error> damage = queue->damage();
    if (!damage) continue;
    const std::string name = queue->name();
    refuse(name, Error{damage->code(), "serve queue '" + name + "'", damage->why(),
                       "what is on disk is whole: stop who uses it, and: shmqctl daemon reload; "
                       "or give it up: shmqctl queue rm " +
                           name});
    queue->close();
    std::erase(hot_, queue);
    watches_.erase(name);
    queues_.erase(name);
    set_sweep_order();
  }
}

void Engine::work(std::uint64_t now_ns) {
  if (!is_draining_) recover_next(now_ns);
  for (std::size_t i = 0; i < hot_.size(); ++i) hot_[i]->work(now_ns);
  stop_damaged();
  answer_creations();
  collect_garbage();
  if (now_ns >= next_sweep_ns_) sweep(now_ns);
}

bool Engine::prepare_sleep() {
  bool may_sleep = garbage_.empty();
  const std::uint64_t now_ns = base::clock->monotonic_ns();
  // What runs on a helper's thread ends the sleep when it is done.
  if (in_recovery_.empty()) {
    for (const Waiting& waiting : waiting_) may_sleep &= waiting.not_before_ns > now_ns;
  }
  for (ManagedQueue* queue : hot_) may_sleep &= queue->prepare_sleep();
  if (may_sleep) cool_down();
  return may_sleep;
}

void Engine::cool_down() {
  std::erase_if(hot_, [](ManagedQueue* queue) {
    if (!queue->is_idle()) return false;
    queue->is_hot = false;
    return true;
  });
}

std::uint64_t Engine::next_timer_ns() const noexcept {
  std::uint64_t at = queues_.empty() ? loop::no_deadline : next_sweep_ns_;
  for (const ManagedQueue* queue : hot_) at = std::min(at, queue->next_timer_ns());
  if (in_recovery_.empty()) {
    for (const Waiting& waiting : waiting_) at = std::min(at, waiting.not_before_ns);
  }
  return at;
}

void Engine::reload() {
  for (const auto& [name, queue] : queues_) queue->reload();
  for (const auto& [name, error] : refused_) {
    waiting_.push_back({.name = name, .not_before_ns = 0, .why = error.why()});
  }
  refused_.clear();
}

bool Engine::is_ready() const noexcept {
  // Who started the daemon must not wait for room on a disk.
  const bool is_recovered = std::all_of(waiting_.begin(), waiting_.end(),
                                        [](const Waiting& waiting) { return waiting.is_for_room; });
  return is_recovered && in_recovery_.empty() &&
         std::all_of(queues_.begin(), queues_.end(), [](const auto& queue) {
           return queue.second->is_served() ||
                  queue.second->figures().health != journal::Health::ok;
         });
}

void Engine::begin_drain() {
  if (std::exchange(is_draining_, true)) return;
  waiting_.clear();
  for (const auto& [name, queue] : queues_) queue->begin_drain();
}

bool Engine::is_drained() const noexcept {
  return is_draining_ && in_recovery_.empty() && in_creation_.empty() &&
         std::all_of(queues_.begin(), queues_.end(),
                     [](const auto& queue) { return queue.second->is_drained(); });
}

bool Engine::has_written_all() const noexcept {
  return is_draining_ && std::all_of(queues_.begin(), queues_.end(), [](const auto& queue) {
           return queue.second->has_written_all();
         });
}

void Engine::close() noexcept {
  for (const auto& [name, queue] : queues_) queue->close();
}

std::vector<QueueStatus> Engine::status() const {
  std::vector<QueueStatus> all;
  for (const auto& [name, queue] : queues_) {
    QueueStatus status{.name = name,
                       .state = "ok",
                       .why = {},
                       .remedy = {},
                       .figures = queue->figures(),
                       .reclaimed = 0};
    if (const auto watch = watches_.find(name); watch != watches_.end()) {
      status.reclaimed = watch->second->reclaimed();
    }
    if (status.figures.health == journal::Health::no_space) {
      status.state = "no_space";
      status.why = "no room for its next journal file";
    } else if (status.figures.health == journal::Health::degraded) {
      status.state = "degraded";
      status.why = std::error_code{status.figures.last_error, std::generic_category()}.message();
    }
    all.push_back(std::move(status));
  }
  for (const auto& [name, error] : refused_) {
    all.push_back({.name = name,
                   .state = "refused",
                   .why = error.why(),
                   .remedy = error.remedy(),
                   .figures = {},
                   .reclaimed = 0});
  }
  for (const std::string& name : in_recovery_) {
    all.push_back({.name = name, .state = "recovering", .why = {}, .remedy = {}, .figures = {}});
  }
  if (restore_ != nullptr) {
    all.push_back({.name = restore_->request().name,
                   .state = "restoring",
                   .why = std::to_string(restore_->percent()) + " %",
                   .remedy = {},
                   .figures = {}});
  }
  for (const Waiting& waiting : waiting_) {
    all.push_back({.name = waiting.name,
                   .state = "recovering",
                   .why = waiting.why,
                   .remedy = {},
                   .figures = {},
                   .reclaimed = 0});
  }
  std::sort(all.begin(), all.end(),
            [](const QueueStatus& a, const QueueStatus& b) { return a.name < b.name; });
  return all;
}

}  // namespace shmq::engine
