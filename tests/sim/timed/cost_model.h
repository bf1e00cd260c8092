// tests/sim/timed/cost_model.h: how long a group computes a step, from what the step reads and
// computes. The formula is that of cli/plan/roofline.h (bytes over the rate of a kernel that only
// reads, operations over the rate of a large GEMM) for a step that has decode rows and prompt
// chunks:
//
//   us = [max(weights / read, products / matrix)      the weights are read once for all rows
//         + max(decode KV / read, pairs / matrix)     attention of the decode rows
//         + max(chunk KV / read, pairs / matrix)]     attention of the prompt chunks
//        / efficiency + sums over the ranks
//
// Each rank of a tensor-parallel group has 1 / tp of the bytes and of the operations. The
// efficiency is the part of the floor that is reached: 0.78, which gives the steps of the 7B shape
// that were measured on an H200 (docs/PERFORMANCE.md) with an error of at most 4 %
// (cost_model_test.cc). Pure.
#pragma once

#include <cstdint>
#include <string>

namespace fathom::sim {

// What a model's shape asks for. Bytes and operations of the whole model.
struct ShapeCosts {
  std::string name;
  double weight_bytes = 0;  // Read by every step: without the embedding and routed experts.
  double row_flops = 0;     // The products of a row, without the LM head.
  double head_flops = 0;    // The LM head of a row that samples.
  double kv_token_bytes = 0;
  bool kv_is_split = true;       // Over the ranks. A latent (MLA) is whole on every rank.
  double decode_pair_flops = 0;  // Attention, of one row and one token of its context, all layers.
  double chunk_pair_flops = 0;   // The same in a prompt chunk.
  // Routed experts: a row uses `experts_of_row` of `experts`. A step reads those that its rows use,
  // drawn independently. `expert_bytes`: of one expert in every layer that has experts.
  double expert_bytes = 0;
  int32_t experts = 0;
  int32_t experts_of_row = 0;
  double product_rate = 1;  // Of GEMMs, relative to the card's bf16 rate: 2 for FP8 weights.
};

// One group of ranks that compute the shape.
struct GroupCosts {
  ShapeCosts shape;
  double read_tbs = 0;       // Of one card, 1e12 bytes a second.
  double matrix_tflops = 0;  // Of one card, bf16.
  int32_t tp = 1;
  double efficiency = 0.78;
  double sums_us = 0;  // The sums over the ranks: of a step, and for each of its rows.
  double sums_row_us = 0;
  double host_tbs = 0.05;  // Between a card and its host: PCIe 5 x16, pinned memory.
};

struct StepWork {
  int32_t rows = 0;
  int32_t sampled = 0;        // Rows that sample.
  double decode_context = 0;  // Over the decode rows: the tokens whose KV each one reads.
  double chunk_context = 0;   // Over the chunks: likewise, once for all rows of a chunk.
  double chunk_pairs = 0;     // Over the rows of chunks: the tokens that each one attends to.
};

double StepUs(const GroupCosts& costs, const StepWork& work);
// The time to copy the KV of `tokens` tokens to the memory of the host, or back.
double CopyUs(const GroupCosts& costs, double tokens);

}  // namespace fathom::sim
