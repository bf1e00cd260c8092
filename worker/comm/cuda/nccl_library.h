// worker/comm/cuda/nccl_library.h: NCCL, opened at run time: a build with NCCL starts on a host
// without it. Thread: any.
#pragma once

#include <string>

#include "common/status.h"

namespace fathom::worker {

inline constexpr const char* kNcclLibrary = "libnccl.so.2";
// The oldest version whose communicators may be aborted while they do not block.
inline constexpr int kNcclVersionMin = 22800;

// "2.28.9" of 22809.
std::string NcclVersionText(int version);
// FAILED_PRECONDITION: older than kNcclVersionMin; the message has both.
absl::Status CheckNcclVersion(int version);

struct NcclApi;  // worker/comm/cuda/nccl_api.h, where there is nccl.h.

// Opens the library once for each name and checks its version. It stays open, because its code must
// outlive every communicator. FAILED_PRECONDITION: this build has no NCCL, the library or a
// function of it is missing, or it is too old.
absl::StatusOr<const NcclApi*> OpenNccl(const char* library = kNcclLibrary);

}  // namespace fathom::worker
