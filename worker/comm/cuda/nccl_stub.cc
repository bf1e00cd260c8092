// The functions of NCCL in a build without nccl.h.
#include "worker/comm/cuda/nccl_comm.h"
#include "worker/comm/cuda/nccl_library.h"

namespace fathom::worker {
namespace {

absl::Status NoNccl() {
  return FailedPrecondition(
      "this build has no NCCL: install nccl.h (libnccl-dev) and build again, or use GPUs that can "
      "reach each other's memory");
}

}  // namespace

absl::StatusOr<const NcclApi*> OpenNccl(const char*) { return NoNccl(); }

absl::StatusOr<std::string> MakeNcclId(const char*) { return NoNccl(); }

absl::StatusOr<std::unique_ptr<DeviceComm>> MakeNcclComm(const NcclCommOptions&) {
  return NoNccl();
}

}  // namespace fathom::worker
