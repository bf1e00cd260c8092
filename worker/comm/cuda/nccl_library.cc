#include "worker/comm/cuda/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <mutex>
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

absl::StatusOr<NcclApi> LoadNccl(const char* library) {
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
  if (Load(opened, "ncclGetVersion", &api.get_version, &missing)) {
    if (api.get_version(&api.version) != ncclSuccess) api.version = 0;
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
  if (missing.empty()) return api;
  return FailedPrecondition("{} has no function {}: it is no NCCL", library, missing);
}

// What is open, for the rest of the process's life.
struct Opened {
  std::mutex mutex;  // Guards what follows.
  std::map<std::string, NcclApi> by_name;
};

}  // namespace

absl::StatusOr<const NcclApi*> OpenNccl(const char* library) {
  static auto* const opened = new Opened;
  const std::lock_guard lock(opened->mutex);
  if (const auto known = opened->by_name.find(library); known != opened->by_name.end()) {
    return &known->second;
  }
  // NVLink multicast stays off. NCCL reads the variable when it makes its first communicator.
  setenv("NCCL_NVLS_ENABLE", "0", 1);
  FATHOM_ASSIGN_OR_RETURN(const NcclApi api, LoadNccl(library));
  return &opened->by_name.emplace(library, api).first->second;
}

}  // namespace fathom::worker
