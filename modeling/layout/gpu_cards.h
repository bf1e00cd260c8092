// modeling/layout/gpu_cards.h: GPUs for which plans and floors can be computed on a host without
// them. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "modeling/layout/cuda_memory_plan.h"

namespace fathom {

struct GpuCard {
  std::string_view name;         // As typed: "h100".
  std::string_view driver_name;  // Part of the name that the driver gives it.
  int64_t memory_bytes = 0;      // As the CUDA driver reports it; less than the vendor's number.
  double read_tbs = 0;           // 1e12 bytes a second, in a kernel that only reads.
  double matrix_tflops = 0;      // Large bf16 GEMMs with fp32 sums, without sparsity.
  bool measured = false;         // True: we measured the two rates; false: the vendor's.
};

// If a driver's name contains another one's, the longer name comes first.
std::span<const GpuCard> GpuCards();
// nullptr: no card has this name.
const GpuCard* FindGpuCard(std::string_view name);
// Finds a card by the driver's name ("NVIDIA H100 80GB HBM3"); nullptr: none.
const GpuCard* GpuCardOfDevice(std::string_view driver_name);
// Sets the card's rates for the plan's default number of tokens per step. GEMMs that run for
// minutes are a tenth slower than the first ones, because the card gets hot.
void SetCard(const GpuCard& card, CudaMemoryRequest* request);
// "h100, h200, ...", for messages.
std::string GpuCardNames();

}  // namespace fathom
