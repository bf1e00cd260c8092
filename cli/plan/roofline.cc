#include "cli/plan/roofline.h"

#include <algorithm>

#include "modeling/layout/gpu_cards.h"
#include "modeling/spec/rank_model.h"

namespace fathom::client {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

constexpr int64_t kElementBytes = 2;  // An element of weights and of KV.

double LayerParameters(const ModelSpec& spec) {
  return static_cast<double>(LayerMatrixElements(spec));
}

double HeadParameters(const ModelSpec& spec) {
  return static_cast<double>(HeadMatrixElements(spec));
}

// Operations of a prompt of `n` tokens: QK and PV, causal, so half of 4 for each pair and element.
double AttentionOperations(const ModelSpec& spec, double n) {
  int64_t q_rows = 0;
  for (const LayerSpec& layer : spec.layers) q_rows += layer.attention.q_rows();
  return 2.0 * n * n * static_cast<double>(q_rows);
}

}  // namespace

std::optional<CardLimits> LimitsOf(std::string_view card) {
  const GpuCard* const found = FindGpuCard(card);
  if (found == nullptr || !found->measured) return std::nullopt;
  return CardLimits{found->read_tbs, found->matrix_tflops,
                    static_cast<double>(found->memory_bytes) / kGib};
}

int64_t StepWeightBytes(const ModelSpec& spec) {
  return kElementBytes * (LayerMatrixElements(spec) + HeadMatrixElements(spec));
}

int64_t KvBytesPerToken(const ModelSpec& spec) { return KvBytes(RankOf(spec), kElementBytes, 1); }

double StepFloorMs(const ModelSpec& spec, const CardLimits& card, int32_t sequences,
                   double context) {
  const double weights = static_cast<double>(StepWeightBytes(spec));
  const double kv = sequences * context * static_cast<double>(KvBytesPerToken(spec));
  const double read_ms = (weights + kv) / card.read_tbs / 1e9;
  const double products_ms = weights * sequences / card.matrix_tflops / 1e9;  // 2 ops, 2 bytes.
  return std::max(read_ms, products_ms);
}

double RankSumsMs(const ModelSpec& spec, int32_t tp, int32_t rows) {
  constexpr double kMeetingUs = 5.4;
  constexpr double kLinkTbs = 0.30;
  if (tp == 1) return 0;
  const double bytes = 2.0 * rows * spec.hidden * (tp - 1);  // What a rank reads of the others.
  const double one_us = kMeetingUs + bytes / kLinkTbs / 1e6;
  return 2.0 * static_cast<double>(spec.layers.size()) * one_us / 1e3;
}

double PrefillFloorMs(const ModelSpec& spec, const CardLimits& card, int32_t prompt_tokens) {
  const double n = prompt_tokens;
  const double operations =
      2 * n * LayerParameters(spec) + 2 * HeadParameters(spec) + AttentionOperations(spec, n);
  const double read_ms = static_cast<double>(StepWeightBytes(spec)) / card.read_tbs / 1e9;
  return std::max(read_ms, operations / card.matrix_tflops / 1e9);
}

double ThroughputCeilingTps(const ModelSpec& spec, const CardLimits& card, int32_t requests,
                            int32_t input_len, int32_t output_len) {
  const double weights = static_cast<double>(StepWeightBytes(spec));
  const double stored = weights + static_cast<double>(kElementBytes * spec.embedding.elements());
  const double context = input_len + output_len / 2.0;
  const double kv_each = context * static_cast<double>(KvBytesPerToken(spec));
  const double room = 0.93 * card.memory_gib * kGib - stored - 4e9;
  const double at_once = std::clamp(room / kv_each, 1.0, static_cast<double>(requests));
  const double kv_s = kv_each / card.read_tbs / 1e12;
  const double products_s =
      std::max(weights / (card.read_tbs * 1e12 * at_once), weights / (card.matrix_tflops * 1e12));
  const double prompt_s = static_cast<double>(input_len) / output_len * 2 * LayerParameters(spec) /
                          (card.matrix_tflops * 1e12);
  return 1 / (kv_s + products_s + prompt_s);
}

}  // namespace fathom::client
