#include "cli/serve/process_set.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/check.h"

extern char** environ;

namespace fathom::client {
namespace {

constexpr size_t kLineBytesMax = 64 << 10;

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// Makes a pipe whose ends close on exec; the read end does not block. Returns 0 or an errno.
int MakePipe(int* read_end, int* write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return errno;
  FATHOM_CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
  *read_end = ends[0];
  *write_end = ends[1];
  return 0;
}

absl::Status CannotStart(const std::string& program, int error) {
  const std::string text = fmt::format("cannot start {}: {}", program, strerror(error));
  switch (error) {
    case ENOENT:
      return NotFound("{}", text);
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ETXTBSY:
      return Unavailable("{}", text);
    default:
      return Internal("{}", text);
  }
}

void Close(int* fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

// Our environment with `changes`, as NAME=value.
std::vector<std::string> Merged(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> merged;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const std::string name(text.substr(0, text.find('=')));
    if (!changes.contains(name)) merged.emplace_back(text);
  }
  for (const auto& [name, value] : changes) merged.push_back(fmt::format("{}={}", name, value));
  return merged;
}

// posix_spawn with stdin from /dev/null, both outputs into our pipes, no blocked signal, and a
// process group of its own.
int Spawn(pid_t* pid, const std::vector<std::string>& argv,
          const std::map<std::string, std::string>& environment, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  sigset_t none, usual = StopSet();
  sigemptyset(&none);
  sigaddset(&usual, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::vector<std::string> variables = Merged(environment);
  std::vector<char*> pointers;
  pointers.reserve(variables.size() + 1);
  for (std::string& variable : variables) pointers.push_back(variable.data());
  pointers.push_back(nullptr);
  const int error =
      posix_spawn(pid, words[0], &actions, &attributes, words.data(), pointers.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Whether the kernel makes this process the parent of orphans.
bool InheritsOrphans() {
  int subreaper = 0;
  return getpid() == 1 || (prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper != 0);
}

}  // namespace

ProcessSet::ProcessSet() : inherits_orphans_(InheritsOrphans()) {
  sigset_t set = StopSet();
  if (inherits_orphans_) {
    sigset_t orphans;
    sigemptyset(&orphans);
    sigaddset(&orphans, SIGCHLD);
    FATHOM_CHECK(pthread_sigmask(SIG_BLOCK, &orphans, nullptr) == 0);
    sigaddset(&set, SIGCHLD);
  }
  signal_fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  FATHOM_CHECK(signal_fd_ >= 0, "signalfd: {}", strerror(errno));
}

ProcessSet::~ProcessSet() {
  for (auto& [child, process] : processes_) {
    kill(process.pid, SIGKILL);
    waitpid(process.pid, nullptr, 0);
    Close(&process.pidfd);
    Close(&process.out.fd);
    Close(&process.err.fd);
  }
  Close(&signal_fd_);
}

absl::StatusOr<pid_t> ProcessSet::Start(int child, const std::vector<std::string>& argv,
                                        const std::map<std::string, std::string>& environment) {
  FATHOM_CHECK(!argv.empty() && !running(child));
  Process process;
  int out = -1, err = -1;
  int error = MakePipe(&process.out.fd, &out);
  if (error == 0) error = MakePipe(&process.err.fd, &err);
  if (error == 0) error = Spawn(&process.pid, argv, environment, out, err);
  Close(&out);
  Close(&err);
  if (error == 0) {
    process.pidfd = static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0));
    if (process.pidfd < 0) {  // Without a pidfd the end of the child would not be noticed.
      error = errno;
      kill(process.pid, SIGKILL);
      waitpid(process.pid, nullptr, 0);
    }
  }
  if (error != 0) {
    Close(&process.out.fd);
    Close(&process.err.fd);
    return CannotStart(argv[0], error);
  }
  fcntl(process.pidfd, F_SETFD, FD_CLOEXEC);
  processes_[child] = process;
  return process.pid;
}

std::vector<ProcessEvent> ProcessSet::Wait(int timeout_ms) {
  std::vector<pollfd> fds = {{signal_fd_, POLLIN, 0}};
  std::vector<int> children;
  for (const auto& [child, process] : processes_) {
    children.push_back(child);
    for (int fd : {process.out.fd, process.err.fd, process.pidfd}) fds.push_back({fd, POLLIN, 0});
  }
  std::vector<ProcessEvent> events;
  if (poll(fds.data(), fds.size(), timeout_ms) <= 0) return events;
  signalfd_siginfo info;
  bool child_ended = false;
  while (read(signal_fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGCHLD) {
      child_ended = true;
    } else {
      events.emplace_back(StopSignal{});
    }
  }
  for (size_t i = 0; i < children.size(); ++i) {
    Process& process = processes_.at(children[i]);
    const pollfd* of = &fds[1 + 3 * i];
    if (of[0].revents != 0) ReadLines(children[i], false, &process.out, &events);
    if (of[1].revents != 0) ReadLines(children[i], true, &process.err, &events);
    if (of[2].revents != 0) Reap(children[i], &events);
  }
  if (child_ended) ReapOrphans(&events);
  return events;
}

void ProcessSet::Signal(int child, int signal) {
  const auto it = processes_.find(child);
  if (it != processes_.end()) kill(it->second.pid, signal);
}

void ProcessSet::ReadLines(int child, bool is_error, Pipe* pipe,
                           std::vector<ProcessEvent>* events) {
  char buffer[16 << 10];
  while (pipe->fd >= 0) {
    const ssize_t n = read(pipe->fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;  // EAGAIN: everything was read.
    if (n == 0) {
      Close(&pipe->fd);
      break;
    }
    for (const char c : std::string_view(buffer, static_cast<size_t>(n))) {
      if (c != '\n') {
        if (pipe->partial.size() < kLineBytesMax) pipe->partial += c;
        continue;
      }
      events->emplace_back(ChildLine{child, is_error, std::exchange(pipe->partial, {})});
    }
  }
  if (pipe->fd < 0 && !pipe->partial.empty()) {
    events->emplace_back(ChildLine{child, is_error, std::exchange(pipe->partial, {})});
  }
}

void ProcessSet::Reap(int child, std::vector<ProcessEvent>* events) {
  Process& process = processes_.at(child);
  int state = 0;
  if (waitpid(process.pid, &state, WNOHANG) != process.pid) return;
  ReadLines(child, false, &process.out, events);
  ReadLines(child, true, &process.err, events);
  Close(&process.out.fd);
  Close(&process.err.fd);
  Close(&process.pidfd);
  processes_.erase(child);
  const int code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  events->emplace_back(ChildExit{child, code});
}

// One SIGCHLD may stand for several ended children, including ours, so each zombie is checked.
void ProcessSet::ReapOrphans(std::vector<ProcessEvent>* events) {
  siginfo_t ended{};
  while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
    const auto own = std::find_if(processes_.begin(), processes_.end(), [&](const auto& entry) {
      return entry.second.pid == ended.si_pid;
    });
    if (own != processes_.end()) {
      Reap(own->first, events);
    } else {
      waitpid(ended.si_pid, nullptr, WNOHANG);
    }
    ended.si_pid = 0;
  }
}

}  // namespace fathom::client
