// cli/serve/worker_flags.h: the flags that `fathom serve` and `fathom workers` pass on to each
// worker, and the model's. Thread: any; one command at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/serve/cluster_plan.h"
#include "common/flags.h"

namespace fathom::client {

class WorkerFlags {
 public:
  WorkerFlags();
  // Adds the flags to `flags`. Both arguments must live until HandOver.
  void AddTo(Flags& flags, ServeOptions* options);
  // After the flags were parsed: fills `options` for the specs of the processes. INVALID_ARGUMENT:
  // --model is missing.
  absl::Status HandOver(ServeOptions* options) const;

 private:
  // A flag that only the workers know, passed to them unchanged.
  struct Handed {
    const char* flag;
    const char* help;
    std::optional<std::string> value;
  };
  std::vector<Handed> handed_;
  bool enforce_eager_ = false;
  bool diagnose_numerics_ = false;
};

}  // namespace fathom::client
