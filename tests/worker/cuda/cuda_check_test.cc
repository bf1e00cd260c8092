// Any CUDA error ends the worker with exit 70 and one line. Without a driver every call fails.
#include "worker/cuda/cuda_check.h"

#include <gtest/gtest.h>

namespace fathom::worker {
namespace {

TEST(CudaCheck, AnErrorEndsTheProcessAndNamesCallFileAndStep) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  SetCudaStep(417);
  EXPECT_EXIT(
      FATHOM_CUDA(cudaSetDevice(123456)), testing::ExitedWithCode(70),
      "CUDA: cudaError.* in cudaSetDevice\\(123456\\) at .*cuda_check_test.cc:[0-9]+, step 417");
}

TEST(CudaCheck, SuccessGoesOn) { FATHOM_CUDA(cudaSuccess); }

}  // namespace
}  // namespace fathom::worker
