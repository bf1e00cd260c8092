// cli/serve/process_set.h: the child processes of one program: it starts them, reads their output
// line by line and reaps them. Thread: one owner, which must live as long as the children, because
// they get a signal when the thread that started them ends. Each child is a process group of its
// own, so Ctrl-C on the terminal reaches only this program, and starts with an empty signal mask.
// The destructor kills (SIGKILL) and reaps the remaining children. If this program inherits orphans
// (process 1 of a container, or a subreaper), it reaps them too, without an event.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/status.h"

namespace fathom::client {

// One whole line (without newline) of a child; longer lines are cut at 64 KiB.
struct ChildLine {
  int child = 0;
  bool is_error = false;  // stderr, else stdout.
  std::string text;
};
// Comes after all lines of the child.
struct ChildExit {
  int child = 0;
  int code = 0;  // Exit code, or 128 + signal.
};
// SIGTERM or SIGINT came.
struct StopSignal {};
using ProcessEvent = std::variant<ChildLine, ChildExit, StopSignal>;

class ProcessSet {
 public:
  // Handles SIGTERM and SIGINT. REQUIRES: both are blocked in every thread (BlockStopSignals is the
  // first call in main). A program that inherits orphans must make its ProcessSet before other
  // threads, and only one: from here on SIGCHLD is blocked, and this object reaps every child, also
  // those that it did not start.
  ProcessSet();
  ~ProcessSet();
  ProcessSet(const ProcessSet&) = delete;
  ProcessSet& operator=(const ProcessSet&) = delete;

  // Starts argv[0] (a path). `child` is the caller's number for it. NOT_FOUND: there is no such
  // program. UNAVAILABLE: the system cannot start it now (no descriptors, processes or memory, or
  // the program file is being written); a later try may succeed. INTERNAL: any other reason.
  // REQUIRES: no living process has the number.
  absl::StatusOr<pid_t> Start(int child, const std::vector<std::string>& argv,
                              const std::map<std::string, std::string>& environment = {});

  // Returns the events, after waiting at most timeout_ms (-1: without limit) for the first one.
  std::vector<ProcessEvent> Wait(int timeout_ms);

  // Does nothing if the child is not running.
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
