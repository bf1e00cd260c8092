// modeling/layout/gpu_cards.h: GPUs that plans and floors can be computed for without one at hand.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "modeling/layout/cuda_memory_plan.h"

namespace fathom::worker {

struct GpuCard {
  std::string_view name;         // As typed: "h100".
  std::string_view driver_name;  // Part of the name that the driver gives it.
  int64_t memory_bytes = 0;      // As the CUDA driver reports it: less than the vendor's number.
  double read_tbs = 0;           // 1e12 bytes a second of a kernel that only reads.
  double matrix_tflops = 0;      // Large bf16 products with fp32 sums, without sparsity.
  bool measured = false;         // The two rates, by us; else the vendor's.
};

// Where a driver's name contains another's, the longer one comes first.
std::span<const GpuCard> GpuCards();
// nullptr: none of this name.
const GpuCard* FindGpuCard(std::string_view name);
// By the driver's name ("NVIDIA H100 80GB HBM3"); nullptr: none.
const GpuCard* GpuCardOfDevice(std::string_view driver_name);
// The card's rates for the plan's default number of tokens a step: products that go on for minutes
// are a tenth slower than the first ones, for heat.
void SetCard(const GpuCard& card, CudaMemoryRequest* request);
// "h100, h200, ...", for messages.
std::string GpuCardNames();

}  // namespace fathom::worker
