#include "cli/plan/roofline.h"

#include <algorithm>

#include "modeling/layout/gpu_cards.h"

namespace fathom::client {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

double LayerParameters(const worker::ModelConfig& c) {
  const double attention = static_cast<double>(c.heads) * c.head_dim;
  const double kv = static_cast<double>(c.kv_heads) * c.head_dim;
  const double each =
      c.hidden * (2 * attention + 2 * kv) + 3.0 * static_cast<double>(c.hidden) * c.ffn;
  return c.layers * each;
}

double HeadParameters(const worker::ModelConfig& c) {
  return static_cast<double>(c.hidden) * c.vocab;
}

}  // namespace

std::optional<CardLimits> LimitsOf(std::string_view card) {
  const worker::GpuCard* const found = worker::FindGpuCard(card);
  if (found == nullptr || !found->measured) return std::nullopt;
  return CardLimits{found->read_tbs, found->matrix_tflops,
                    static_cast<double>(found->memory_bytes) / kGib};
}

int64_t StepWeightBytes(const worker::ModelConfig& config) {
  return static_cast<int64_t>(2 * (LayerParameters(config) + HeadParameters(config)));
}

int64_t KvBytesPerToken(const worker::ModelConfig& config) {
  return int64_t{2} * 2 * config.layers * config.kv_heads * config.head_dim;
}

double StepFloorMs(const worker::ModelConfig& config, const CardLimits& card, int32_t sequences,
                   double context) {
  const double weights = static_cast<double>(StepWeightBytes(config));
  const double kv = sequences * context * static_cast<double>(KvBytesPerToken(config));
  const double read_ms = (weights + kv) / card.read_tbs / 1e9;
  const double products_ms = weights * sequences / card.matrix_tflops / 1e9;  // 2 ops, 2 bytes.
  return std::max(read_ms, products_ms);
}

double PrefillFloorMs(const worker::ModelConfig& config, const CardLimits& card,
                      int32_t prompt_tokens) {
  const double n = prompt_tokens;
  const double attention = 2.0 * n * n * config.heads * config.head_dim *
                           config.layers;  // QK and PV, causal: half of 4.
  const double operations =
      2 * n * LayerParameters(config) + 2 * HeadParameters(config) + attention;
  const double read_ms = static_cast<double>(StepWeightBytes(config)) / card.read_tbs / 1e9;
  return std::max(read_ms, operations / card.matrix_tflops / 1e9);
}

double ThroughputCeilingTps(const worker::ModelConfig& config, const CardLimits& card,
                            int32_t requests, int32_t input_len, int32_t output_len) {
  const double weights = static_cast<double>(StepWeightBytes(config));
  const double stored = weights + 2 * HeadParameters(config);  // The embedding table too.
  const double context = input_len + output_len / 2.0;
  const double kv_each = context * static_cast<double>(KvBytesPerToken(config));
  const double room = 0.93 * card.memory_gib * kGib - stored - 4e9;
  const double at_once = std::clamp(room / kv_each, 1.0, static_cast<double>(requests));
  const double kv_s = kv_each / card.read_tbs / 1e12;
  const double products_s =
      std::max(weights / (card.read_tbs * 1e12 * at_once), weights / (card.matrix_tflops * 1e12));
  const double prompt_s = static_cast<double>(input_len) / output_len * 2 *
                          LayerParameters(config) / (card.matrix_tflops * 1e12);
  return 1 / (kv_s + products_s + prompt_s);
}

}  // namespace fathom::client
