// cli/serve/process_set.h: child processes of one program: started, heard line by line, reaped.
// Thread: one owner, which must live as long as the children (they get a signal when the thread
// that started them ends). Children are process groups of their own, so that Ctrl-C on the terminal
// reaches only this program, and start with an empty signal mask. The destructor kills (SIGKILL)
// and reaps what is left. Where this program is the one that inherits orphans (process 1 of a
// container, or a subreaper), it reaps them too; nothing is reported of them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/status.h"

namespace fathom::client {

// One whole line (no newline) that a child wrote; lines beyond 64 KiB are cut there.
struct ChildLine {
  int child = 0;
  bool is_error = false;  // stderr, else stdout.
  std::string text;
};
// After all of the child's lines.
struct ChildExit {
  int child = 0;
  int code = 0;  // Exit code, or 128 + signal.
};
// SIGTERM or SIGINT came.
struct StopSignal {};
using ProcessEvent = std::variant<ChildLine, ChildExit, StopSignal>;

class ProcessSet {
 public:
  // Listens to SIGTERM and SIGINT. REQUIRES: they are blocked in every thread (BlockStopSignals
  // first in main). A program that inherits orphans makes its ProcessSet before other threads and
  // has only one: SIGCHLD is blocked from here on, and every child that this set did not start is
  // reaped by it.
  ProcessSet();
  ~ProcessSet();
  ProcessSet(const ProcessSet&) = delete;
  ProcessSet& operator=(const ProcessSet&) = delete;

  // Starts argv[0] (a path). `child` is the caller's number for it. NOT_FOUND: no such program.
  // UNAVAILABLE: the system cannot start it now (no descriptors, processes or memory, or the
  // program is being written); another try may work. INTERNAL: any other reason. REQUIRES: no
  // living process has that number.
  absl::StatusOr<pid_t> Start(int child, const std::vector<std::string>& argv,
                              const std::map<std::string, std::string>& environment = {});

  // What happened, waiting at most timeout_ms (-1: without end) for the first of it.
  std::vector<ProcessEvent> Wait(int timeout_ms);

  // Nothing when it is not running.
  void Signal(int child, int signal);
  bool running(int child) const { return processes_.contains(child); }
  size_t running_count() const { return processes_.size(); }

 private:
  struct Pipe {
    int fd = -1;
    std::string partial;
  };
  struct Process {
    pid_t pid = 0;
    int pidfd = -1;
    Pipe out, err;
  };

  void ReadLines(int child, bool is_error, Pipe* pipe, std::vector<ProcessEvent>* events);
  void Reap(int child, std::vector<ProcessEvent>* events);
  void ReapOrphans(std::vector<ProcessEvent>* events);

  const bool inherits_orphans_;
  int signal_fd_ = -1;
  std::map<int, Process> processes_;
};

}  // namespace fathom::client
