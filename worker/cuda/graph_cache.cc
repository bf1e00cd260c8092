#include "worker/cuda/graph_cache.h"

#include <algorithm>

#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

int64_t FreeBytes() {
  size_t free = 0, total = 0;
  FATHOM_CUDA(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

}  // namespace

GraphCache::~GraphCache() {
  Clear();
  if (capture_stream_ != nullptr) cudaStreamDestroy(capture_stream_);
}

void GraphCache::Clear() {
  for (const auto& [shape, graph] : by_shape_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  by_shape_.clear();
  bytes_ = graphs_ = 0;
}

absl::Status GraphCache::Run(cudaStream_t stream, const CudaStepShape& shape,
                             const Enqueue& enqueue) {
  const auto [it, first] = by_shape_.try_emplace(shape, nullptr);
  if (it->second == nullptr && !first && bytes_ < arena_bytes_) {
    FATHOM_ASSIGN_OR_RETURN(it->second, Capture(enqueue));
  }
  if (it->second == nullptr) return enqueue(stream);
  FATHOM_CUDA(cudaGraphLaunch(it->second, stream));
  return absl::OkStatus();
}

absl::StatusOr<cudaGraphExec_t> GraphCache::Capture(const Enqueue& enqueue) {
  if (capture_stream_ == nullptr) {
    FATHOM_CUDA(cudaStreamCreateWithFlags(&capture_stream_, cudaStreamNonBlocking));
  }
  const int64_t free_before = FreeBytes();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  FATHOM_CUDA(cudaStreamBeginCapture(capture_stream_, cudaStreamCaptureModeThreadLocal));
  const absl::Status enqueued = enqueue(capture_stream_);
  FATHOM_CUDA(cudaStreamEndCapture(capture_stream_, &graph));
  if (!enqueued.ok()) {
    FATHOM_CUDA(cudaGraphDestroy(graph));
    return enqueued;
  }
  FATHOM_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  FATHOM_CUDA(cudaGraphDestroy(graph));
  // Uploads the graph now, so that its first launch takes no memory that is not counted here.
  FATHOM_CUDA(cudaGraphUpload(exec, capture_stream_));
  FATHOM_CUDA(cudaStreamSynchronize(capture_stream_));
  bytes_ += std::max<int64_t>(free_before - FreeBytes(), 0);
  ++graphs_;
  if (grew_) grew_(bytes_);
  return exec;
}

}  // namespace fathom::worker
