// cli/plan/roofline.h: the best values that a card allows for a model's shape. Pure.
//
// A floor is the longer of two times: the bytes that must be read over the bandwidth of a kernel
// that only reads, and the operations over the rate of a large GEMM. Weights are counted without
// the embedding table (one row of it is read), KV with two bytes for each element.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "modeling/spec/model_spec.h"

namespace fathom::client {

// The limits of one GPU, measured (tests/gpu/run limits).
struct CardLimits {
  double read_tbs = 0;       // 1e12 bytes a second.
  double matrix_tflops = 0;  // bf16.
  double memory_gib = 0;
};

// The measured limits of "h100" or "h200"; nullopt for another name.
std::optional<CardLimits> LimitsOf(std::string_view card);

// The bytes of all weights that a step reads, and of a token's K and V.
int64_t StepWeightBytes(const ModelSpec& spec);
int64_t KvBytesPerToken(const ModelSpec& spec);

// A step of one token for each of `sequences`, with `context` tokens each on average.
double StepFloorMs(const ModelSpec& spec, const CardLimits& card, int32_t sequences,
                   double context);

// The sums of a step of `rows` rows over the ranks of a tensor-parallel group: two in each layer,
// by the one-shot all-reduce over NVLink, as measured between two H200 (comm_bench,
// docs/PERFORMANCE.md). 0 for one rank.
double RankSumsMs(const ModelSpec& spec, int32_t tp, int32_t rows);

// The whole prompt in one step, with the LM head for its last row.
double PrefillFloorMs(const ModelSpec& spec, const CardLimits& card, int32_t prompt_tokens);

// Output tokens per second: KV, GEMMs and prompts one after the other, with as many of `requests`
// at once as fit into 93 % of the memory less the weights and 4 GB.
double ThroughputCeilingTps(const ModelSpec& spec, const CardLimits& card, int32_t requests,
                            int32_t input_len, int32_t output_len);

}  // namespace fathom::client
