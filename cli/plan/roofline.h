// cli/plan/roofline.h: what a card allows at best for a model's shape. Pure.
//
// A floor is the bytes that must be read over the bandwidth of a kernel that only reads, or the
// operations over the rate of a large matrix product, whichever is longer. Weights count without
// the embedding table (one row of it is read), KV as stored in two bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "modeling/spec/model_spec.h"

namespace fathom::client {

// Of one GPU, measured (tests/gpu/run limits).
struct CardLimits {
  double read_tbs = 0;       // 1e12 bytes a second.
  double matrix_tflops = 0;  // bf16.
  double memory_gib = 0;
};

// "h100", "h200": what was measured on one of them; nullopt for another name.
std::optional<CardLimits> LimitsOf(std::string_view card);

// Bytes of all weights that a step reads, and of a token's K and V.
int64_t StepWeightBytes(const worker::ModelSpec& spec);
int64_t KvBytesPerToken(const worker::ModelSpec& spec);

// A step of one token for each of `sequences` at `context` tokens on average.
double StepFloorMs(const worker::ModelSpec& spec, const CardLimits& card, int32_t sequences,
                   double context);

// The whole of a prompt in one step, its last row through the head.
double PrefillFloorMs(const worker::ModelSpec& spec, const CardLimits& card, int32_t prompt_tokens);

// Output tokens a second: KV, products and prompts in turn, with as many of `requests` at once as
// fit 93 % of the memory less the weights and 4 GB.
double ThroughputCeilingTps(const worker::ModelSpec& spec, const CardLimits& card, int32_t requests,
                            int32_t input_len, int32_t output_len);

}  // namespace fathom::client
