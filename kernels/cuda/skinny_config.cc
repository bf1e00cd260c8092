#include "kernels/cuda/skinny_config.h"

namespace fathom::kernels::cuda {

std::string ToString(const SkinnyConfig& config) {
  return "rows " + std::to_string(config.row_bucket) + ", tiles " + std::to_string(config.tiles) +
         ", chunk " + std::to_string(config.chunk) + ", stages " + std::to_string(config.stages) +
         (config.fuses_norm ? ", norm inside" : "") + ", grid " + std::to_string(config.grid);
}

}  // namespace fathom::kernels::cuda
