#include "worker/comm/nccl_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr int kTailTries = 20;
constexpr auto kTailPause = std::chrono::milliseconds(5);

std::atomic<NcclLog*> g_log{nullptr};

}  // namespace

absl::StatusOr<std::unique_ptr<NcclLog>> NcclLog::Start(const std::string& path,
                                                        int64_t bytes_max) {
  auto file = RotatingFile::Open(path, bytes_max);
  if (!file.ok()) return Annotate(file.status(), "the file of --nccl-debug");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return Unavailable("no pipe for the log of NCCL: {}", std::strerror(errno));
  }
  const int stop = eventfd(0, EFD_CLOEXEC);
  if (stop < 0) {
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    return Unavailable("no eventfd for the log of NCCL: {}", std::strerror(error));
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return std::unique_ptr<NcclLog>(new NcclLog(path, *std::move(file), ends[0], ends[1], stop));
}

NcclLog::NcclLog(std::string path, std::unique_ptr<RotatingFile> file, int read_end, int write_end,
                 int stop)
    : path_(std::move(path)),
      file_(std::move(file)),
      read_end_(read_end),
      write_end_(write_end),
      stop_(stop),
      nccl_path_(fmt::format("/proc/self/fd/{}", write_end)),
      thread_([this] { Run(); }) {}

NcclLog::~NcclLog() {
  const uint64_t one = 1;
  FATHOM_CHECK(write(stop_, &one, sizeof one) == static_cast<ssize_t>(sizeof one));
  thread_.join();
  close(read_end_);
  close(write_end_);
  close(stop_);
}

void NcclLog::Run() {
  char buffer[16 << 10];
  pollfd fds[] = {{read_end_, POLLIN, 0}, {stop_, POLLIN, 0}};
  while (true) {
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
    for (ssize_t n = 0; (n = read(read_end_, buffer, sizeof buffer)) > 0;) {
      Take({buffer, static_cast<size_t>(n)});
    }
    if (fds[1].revents == 0) continue;
    if (!partial_.empty()) TakeLine();
    return;
  }
}

void NcclLog::Take(std::string_view bytes) {
  for (const char c : bytes) {
    if (c != '\n') partial_ += c;
    if (c == '\n' || partial_.size() >= kLineBytesMax) TakeLine();
  }
}

void NcclLog::TakeLine() {
  file_->Append(partial_);
  const std::lock_guard lock(mutex_);
  tail_.push_back(std::exchange(partial_, {}));
  if (tail_.size() > kTailLines) tail_.pop_front();
}

std::string NcclLog::Tail() const {
  for (int i = 0, waiting = 0; i < kTailTries; ++i) {
    if (ioctl(read_end_, FIONREAD, &waiting) != 0 || waiting == 0) break;
    std::this_thread::sleep_for(kTailPause);
  }
  const std::lock_guard lock(mutex_);
  if (tail_.empty()) return {};
  std::string text = fmt::format("; the last lines of NCCL ({}): ", path_);
  for (size_t i = 0; i < tail_.size(); ++i) text += (i > 0 ? " | " : "") + tail_[i];
  return text;
}

absl::StatusOr<NcclLog*> StartNcclLog(const std::string& path) {
  FATHOM_CHECK(g_log.load() == nullptr);
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<NcclLog> log, NcclLog::Start(path));
  g_log.store(log.release());  // NCCL may write until the process ends.
  return g_log.load();
}

std::string NcclLogTail() {
  const NcclLog* const log = g_log.load();
  return log == nullptr ? std::string() : log->Tail();
}

}  // namespace fathom::worker
