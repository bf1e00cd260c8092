#include "common/output.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include "common/exit_codes.h"

namespace fathom {
namespace {

constexpr int kSlowReaderMs = 100;

std::atomic<uint64_t> dropped{0};

// stdout or stderr for diagnostics: without a buffer, and with a bounded wait.
class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}

  // Returns false if `text` was dropped or cut short.
  bool Write(std::string_view text) {
    if (cut_.load()) {  // The last line that was written has no end.
      if (WritePart("\n") == 0) return Drop();
      cut_ = false;
    }
    for (size_t done = 0; done < text.size();) {
      // A pipe that is ready takes up to this many bytes without blocking.
      const size_t written = WritePart(text.substr(done, PIPE_BUF));
      if (written == 0) {
        if (done > 0) cut_ = true;
        return Drop();
      }
      done += written;
    }
    stalled_ = false;
    return true;
  }

 private:
  bool Drop() {
    stalled_ = true;
    dropped.fetch_add(1);
    return false;
  }

  // Returns the number of bytes written; 0: none.
  size_t WritePart(std::string_view part) {
    pollfd ready{fd_, POLLOUT, 0};
    int got = 0;
    do {
      got = poll(&ready, 1, stalled_.load() ? 0 : kSlowReaderMs);
    } while (got < 0 && errno == EINTR);
    if (got <= 0 || (ready.revents & POLLOUT) == 0) return 0;
    ssize_t written = 0;
    do {
      written = write(fd_, part.data(), part.size());
    } while (written < 0 && errno == EINTR);
    return written > 0 ? static_cast<size_t>(written) : 0;
  }

  const int fd_;
  std::atomic<bool> stalled_{false};
  std::atomic<bool> cut_{false};
};

Stream errors(STDERR_FILENO);
Stream announcements(STDOUT_FILENO);

// The errno of the first failed write of the answer; 0: no write failed.
int answer_error = 0;

}  // namespace

void PrepareOutput() {
  signal(SIGPIPE, SIG_IGN);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // open returns the lowest free number, which is this one, because all lower ones are open by
    // now.
    (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

void WriteDiagnostic(std::string_view text) { errors.Write(text); }
bool WriteAnnouncement(std::string_view text) { return announcements.Write(text); }
void CountDroppedDiagnostics(uint64_t lines) { dropped.fetch_add(lines); }
uint64_t DroppedDiagnostics() { return dropped.load(); }

void WriteAnswer(std::string_view text) {
  if (answer_error != 0 || text.empty()) return;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    answer_error = errno != 0 ? errno : EIO;
  }
}

bool FlushAnswer() {
  if (answer_error != 0) return false;
  errno = 0;
  if (std::fflush(stdout) != 0) answer_error = errno != 0 ? errno : EIO;
  return answer_error == 0;
}

int EndAnswer(std::string_view program, int code) {
  if (FlushAnswer()) return code;
  if (answer_error != EPIPE) {
    Diagnose("{}: the answer cannot be written to stdout: {}; it is missing or not whole", program,
             std::strerror(answer_error));
  }
  return code == kExitOk ? kExitOutput : code;
}

}  // namespace fathom
