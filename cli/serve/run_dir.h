// cli/serve/run_dir.h: the folder of a program that supervises processes: their logs, and the
// scheduler's term. It belongs to one program at a time. Thread: any.
#pragma once

#include <string>

#include "common/status.h"

namespace fathom::client {

// The folder of the running program, which has Fathom's other programs.
std::string BinDir();

// Creates and locks a folder until this process ends, and returns its path. `wanted` is the path
// that the user gave; if it is empty, the folder is `name` in $XDG_RUNTIME_DIR (without that
// variable, in /tmp/fathom-UID), and without a name a new one there. `program` is the running
// command, for messages. The owner of the folder is this user, or, of one that the user gave, root.
// UNAVAILABLE: another process has the folder. FAILED_PRECONDITION: it belongs to another user, or
// this one cannot write it.
absl::StatusOr<std::string> HoldRunDir(const std::string& program, const std::string& wanted,
                                       const std::string& name);

}  // namespace fathom::client
