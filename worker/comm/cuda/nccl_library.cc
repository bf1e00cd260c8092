#include "worker/comm/cuda/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "worker/comm/cuda/nccl_api.h"

namespace fathom::worker {
namespace {

template <class F>
bool Load(void* library, const char* name, F* function, std::string* missing) {
  *function = reinterpret_cast<F>(dlsym(library, name));
  if (*function == nullptr && missing->empty()) *missing = name;
  return *function != nullptr;
}

}  // namespace

absl::StatusOr<const NcclApi*> OpenNccl(const char* library) {
  // NVLink multicast stays off. NCCL reads the variable when it makes its first communicator.
  setenv("NCCL_NVLS_ENABLE", "0", 1);
  void* const opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* const reason = dlerror();
    return FailedPrecondition(
        "NCCL was not found ({}): install libnccl2 {} or later, or put its folder in "
        "LD_LIBRARY_PATH",
        reason != nullptr ? reason : library, NcclVersionText(kNcclVersionMin));
  }
  NcclApi api;
  std::string missing;
  Load(opened, "ncclGetVersion", &api.get_version, &missing);
  if (missing.empty() && api.get_version(&api.version) == ncclSuccess) {
    FATHOM_RETURN_IF_ERROR(CheckNcclVersion(api.version));
  }
  Load(opened, "ncclGetErrorString", &api.error_string, &missing);
  Load(opened, "ncclGetLastError", &api.last_error, &missing);
  Load(opened, "ncclGetUniqueId", &api.unique_id, &missing);
  Load(opened, "ncclCommInitRankConfig", &api.init, &missing);
  Load(opened, "ncclCommGetAsyncError", &api.async_error, &missing);
  Load(opened, "ncclCommAbort", &api.abort_comm, &missing);
  Load(opened, "ncclAllReduce", &api.all_reduce, &missing);
  Load(opened, "ncclAllGather", &api.all_gather, &missing);
  Load(opened, "ncclSend", &api.send, &missing);
  Load(opened, "ncclRecv", &api.recv, &missing);
  Load(opened, "ncclGroupStart", &api.group_start, &missing);
  Load(opened, "ncclGroupEnd", &api.group_end, &missing);
  if (!missing.empty()) {
    return FailedPrecondition("{} has no function {}: it is no NCCL", library, missing);
  }
  return new NcclApi(api);  // As long as the library: until the process ends.
}

}  // namespace fathom::worker
