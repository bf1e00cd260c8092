#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

void AddInto(const AddArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) args.y[i] += args.x[i];
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
