// worker/cuda/graph_cache.h: captured decode steps, one graph for each shape. The messages of a
// step to and from other ranks are in its graph, and their sizes follow from the shape, too. A
// shape is captured when it occurs for the second time: the first run is eager and loads the
// kernels, and the start of the worker captures nothing. When the graphs have used their part of
// the memory plan, shapes without a graph stay eager. Thread: the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "common/status.h"
#include "modeling/layout/cuda_step_layout.h"

namespace fathom::worker {

class GraphCache {
 public:
  // `arena_bytes`: the most device memory that the graphs may take. `grew`, unless null, is called
  // after each capture with the memory of all graphs.
  GraphCache(int64_t arena_bytes, std::function<void(int64_t bytes)> grew)
      : arena_bytes_(arena_bytes), grew_(std::move(grew)) {}
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Runs a step of this shape on `stream`: by its graph, or by `enqueue`, which launches the step.
  // An error is that of `enqueue`; then nothing was captured.
  using Enqueue = std::function<absl::Status(cudaStream_t)>;
  absl::Status Run(cudaStream_t stream, const CudaStepShape& shape, const Enqueue& enqueue);

  // Forgets all graphs, whose collectives are void. REQUIRES: none of them runs.
  void Clear();

  int64_t bytes() const { return bytes_; }
  int64_t graphs() const { return graphs_; }

 private:
  absl::StatusOr<cudaGraphExec_t> Capture(const Enqueue& enqueue);

  const int64_t arena_bytes_;
  const std::function<void(int64_t bytes)> grew_;
  int64_t bytes_ = 0;  // Of all graphs since the last Clear.
  int64_t graphs_ = 0;
  cudaStream_t capture_stream_ = nullptr;
  std::map<CudaStepShape, cudaGraphExec_t> by_shape_;  // Null: the shape occurred once.
};

}  // namespace fathom::worker
