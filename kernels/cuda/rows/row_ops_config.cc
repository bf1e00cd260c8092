#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kGridYMax = 65535;
constexpr int kKeptVectors[] = {1, 2, 4, 6, 8};  // The values for which RmsNorm is compiled.

int Ceil(int a, int b) { return (a + b - 1) / b; }

}  // namespace

std::optional<RowOpConfig> RmsNormPickConfig(int rows, int width) {
  if (rows < 0 || width <= 0 || width % 8 != 0) return std::nullopt;
  const int vectors = Ceil(width / 8, kNormThreads);
  RowOpConfig config{kNormThreads, rows, 1, 0};
  for (const int kept : kKeptVectors) {
    if (vectors > kept) continue;
    config.variant = kept;
    break;
  }
  return config;
}

std::optional<RowOpConfig> RopeKvWritePickConfig(int rows, int heads, int kv_heads, int head_dim) {
  if (rows < 0 || rows > kGridYMax || heads <= 0 || kv_heads <= 0 ||
      (head_dim != 64 && head_dim != 128)) {
    return std::nullopt;
  }
  const int pairs = head_dim / 16;
  return RowOpConfig{kRowOpThreads, Ceil((heads + 2 * kv_heads) * pairs, kRowOpThreads), rows,
                     pairs};
}

std::optional<RowOpConfig> SiluMulPickConfig(int rows, int ffn) {
  if (rows < 0 || rows > kGridYMax || ffn <= 0 || ffn % 8 != 0) return std::nullopt;
  return RowOpConfig{kRowOpThreads, Ceil(ffn / 8, kRowOpThreads), rows, 0};
}

std::optional<RowOpConfig> EmbeddingPickConfig(int rows, int hidden) {
  if (rows < 0 || hidden <= 0 || hidden % 8 != 0) return std::nullopt;
  return RowOpConfig{kRowOpThreads, rows, 1, 0};
}

std::string ToString(const RowOpConfig& config) {
  return "grid " + std::to_string(config.blocks_x) + " x " + std::to_string(config.blocks_y) +
         ", threads " + std::to_string(config.threads) + ", variant " +
         std::to_string(config.variant);
}

}  // namespace fathom::kernels::cuda
