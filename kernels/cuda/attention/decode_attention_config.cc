#include "kernels/cuda/attention/decode_attention_config.h"

namespace fathom::kernels::cuda {

std::optional<DecodeAttentionConfig> DecodeAttentionPickConfig(int heads, int kv_heads,
                                                               int head_dim) {
  if (kv_heads < 1 || heads < 1 || heads % kv_heads != 0) return std::nullopt;
  if (head_dim != 64 && head_dim != 128) return std::nullopt;
  const int group = heads / kv_heads;
  if (group > 16) return std::nullopt;
  const int columns = group <= 8 ? 8 : 16;
  return DecodeAttentionConfig{head_dim, columns, kDecodeHalves,
                               DecodeSharedBytes(head_dim, columns)};
}

std::string ToString(const DecodeAttentionConfig& config) {
  return "head_dim " + std::to_string(config.head_dim) + ", columns " +
         std::to_string(config.columns) + ", halves " + std::to_string(config.halves) + ", " +
         std::to_string(config.shared_bytes) + " bytes shared";
}

}  // namespace fathom::kernels::cuda
