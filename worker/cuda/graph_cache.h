// worker/cuda/graph_cache.h: captured decode steps, one graph per shape, made when a shape comes
// for the second time: the first run is eager and loads the kernels, and a start pays for none.
// When the graphs' share of the memory plan is used up, shapes without a graph stay eager. Thread:
// the engine thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "modeling/layout/cuda_step_layout.h"

namespace fathom::worker {

class GraphCache {
 public:
  // `arena_bytes`: what the graphs may take of the device's memory. `grew`, unless null, is told
  // what they take after each capture.
  GraphCache(int64_t arena_bytes, std::function<void(int64_t bytes)> grew)
      : arena_bytes_(arena_bytes), grew_(std::move(grew)) {}
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Runs the step of this shape on `stream`: by its graph, or by `enqueue`, which launches it.
  void Run(cudaStream_t stream, const CudaStepShape& shape,
           const std::function<void(cudaStream_t)>& enqueue);

  int64_t bytes() const { return bytes_; }
  int64_t graphs() const { return graphs_; }

 private:
  cudaGraphExec_t Capture(const std::function<void(cudaStream_t)>& enqueue);

  const int64_t arena_bytes_;
  const std::function<void(int64_t bytes)> grew_;
  int64_t bytes_ = 0;
  int64_t graphs_ = 0;
  cudaStream_t capture_stream_ = nullptr;
  std::map<CudaStepShape, cudaGraphExec_t> by_shape_;  // Null: seen once.
};

}  // namespace fathom::worker
