// kernels/non_finite.h: whether a row has a value that is NaN or infinite. One pass; the fault of a
// row is found here before anything is sampled from it.
#pragma once

#include <span>

namespace fathom::kernels {

bool HasNonFiniteRef(std::span<const float> values);
bool HasNonFiniteCpu(std::span<const float> values);

}  // namespace fathom::kernels
