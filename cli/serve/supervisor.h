// cli/serve/supervisor.h: keeps a set of processes alive: starts them, reads the JSON lines by
// which they say where they listen and how their start goes, restarts what dies, and stops them in
// order. A child that ends with 64 (bad usage), 66 (bad model) or, before MarkReady, 71 (the
// system's limits) is not started again: the whole ends with that code. A restart that fails (the
// program is being replaced, the system has no process or memory to give) counts as a death and is
// tried again. Only deaths during the start, or soon after it, delay the next one: whoever is
// killed now and then is back at once. A child's stderr is appended to RUN_DIR/<name>.log, which is
// bounded (cli/serve/rotating_file.h). Thread: one owner, as ProcessSet.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/serve/child_spec.h"
#include "cli/serve/process_set.h"
#include "cli/serve/rotating_file.h"
#include "cli/serve/timeline.h"
#include "common/clock.h"
#include "common/status.h"

namespace fathom::client {

struct ChildState {
  pid_t pid = 0;   // Of the living process, else 0.
  int deaths = 0;  // In a row, without a healthy life between them.
  TimeUs started_at_us = 0;
  TimeUs restart_at_us = 0;               // While it is down.
  std::optional<TimeUs> listening_at_us;  // Of this life.
  std::optional<TimeUs> up_at_us;         // Likewise: the end of its start.
  std::map<std::string, int64_t> ports;   // As it said.
  std::vector<PhaseMark> phases;          // Of this life.
  std::string last_error;                 // Its last line on stderr, of any life.
  int last_code = 0;
};

struct SupervisorOptions {
  std::string run_dir;                        // Exists.
  bool verbose = false;                       // Children's stderr also goes to ours.
  int64_t log_bytes_max = int64_t{16} << 20;  // Of one file; a child has at most two.
  int64_t backoff_first_us = 100'000;
  int64_t backoff_max_us = 5'000'000;
  int64_t healthy_us = 1'000'000;   // So long after its start a life forgets the deaths before it.
  int deaths_before_ready_max = 3;  // Of one child, until MarkReady: then the start has failed.
};

// The wait before the next start after so many deaths in a row: none after the first one.
// REQUIRES: deaths >= 1.
int64_t RestartDelayUs(const SupervisorOptions& options, int deaths);

class Supervisor {
 public:
  Supervisor(SupervisorOptions options, const Clock* clock);

  // Starts a child; its number is its order. NOT_FOUND when there is no such program; another
  // failure to start it is tried again by Poll.
  absl::StatusOr<int> Add(ChildSpec spec);

  // The end of the supervision: the exit code and one line for people.
  struct Verdict {
    int code = 0;
    std::string message;
  };
  // Handles what happens within timeout_ms. A verdict: a child ended for good, or a stop signal
  // came (code 0).
  std::optional<Verdict> Poll(int timeout_ms);

  // From now on deaths do not end the start.
  void MarkReady() { ready_ = true; }

  // Stops all, stage by stage, each with SIGTERM and at most `grace_us` before SIGKILL; a stop
  // signal meanwhile ends the rest at once. False: something had to be killed.
  bool Stop(int64_t grace_us);

  const ChildState& child(int index) const { return children_[index].state; }
  // Lines that something happened to the cluster ("worker-0 died (137); starting it again"), since
  // the last call.
  std::vector<std::string> TakeNotes();

 private:
  struct Child {
    ChildSpec spec;
    ChildState state;
    std::unique_ptr<RotatingFile> log;
  };

  absl::Status Start(int index);
  std::optional<Verdict> Handle(const ProcessEvent& event);
  std::optional<Verdict> OnExit(const ChildExit& exit);
  std::optional<Verdict> OnStartFailed(int index, const absl::Status& status);
  // It is down; says when it starts again. `what` is how it ended.
  std::optional<Verdict> OnDown(int index, const std::string& what, int code);
  void OnLine(const ChildLine& line);
  bool StopStage(int stage, int64_t grace_us);
  int WaitMs(int timeout_ms) const;

  const SupervisorOptions options_;
  const Clock* const clock_;
  ProcessSet processes_;
  std::vector<Child> children_;
  std::vector<std::string> notes_;
  bool ready_ = false;
  bool stopping_ = false;
  bool stop_twice_ = false;
};

}  // namespace fathom::client
