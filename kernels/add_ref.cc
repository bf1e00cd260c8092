#include "kernels/add.h"

namespace fathom::kernels {

void AddRef(const AddArgs& args) {
  for (int64_t i = 0; i < args.count; ++i) args.y[i] += args.x[i];
}

}  // namespace fathom::kernels
