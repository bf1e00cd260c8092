#include "worker/cuda/cuda_check.h"

#include <unistd.h>

#include <atomic>
#include <string_view>

#include "common/flags.h"
#include "common/log.h"
#include "common/output.h"

namespace fathom::worker {
namespace {

std::atomic<uint64_t> step_in_work{0};

}  // namespace

void SetCudaStep(uint64_t step) { step_in_work.store(step, std::memory_order_relaxed); }

void CudaFailed(cudaError_t error, const char* call, const char* file, int line) {
  std::string_view shown(call);
  shown = shown.substr(0, 160);
  const std::string text = fmt::format("CUDA: {} ({}) in {} at {}:{}, step {}",
                                       cudaGetErrorName(error), cudaGetErrorString(error), shown,
                                       file, line, step_in_work.load(std::memory_order_relaxed));
  LogError("{}", text);
  LogFlush();
  Diagnose("fathom-worker: {}", text);
  _exit(kExitInternal);  // Without destructors, which would call the driver that failed.
}

}  // namespace fathom::worker
