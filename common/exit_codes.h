// common/exit_codes.h: the exit codes of every program (docs/OPERATIONS.md). Codes from 64 on
// follow sysexits.h.
#pragma once

namespace fathom {

inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 64;        // Flags, keys, values.
inline constexpr int kExitBadModel = 66;     // The model folder.
inline constexpr int kExitUnavailable = 69;  // An address in use; no peer to talk to.
inline constexpr int kExitInternal = 70;     // Our bug, or a device's fault.
inline constexpr int kExitResources = 71;    // The system's limits: descriptors, memory, threads.
inline constexpr int kExitOutput = 74;       // The answer cannot be written.

}  // namespace fathom
