#include "kernels/add.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/logprob.h"
#include "kernels/non_finite.h"
#include "kernels/paged_attention.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope_kv_write.h"
#include "kernels/sample.h"
#include "kernels/silu_mul.h"

namespace fathom::kernels {

void EmbeddingCpu(const EmbeddingArgs& args, ThreadPool&) { EmbeddingRef(args); }
void RmsNormCpu(const RmsNormArgs& args, ThreadPool&) { RmsNormRef(args); }
void GemmCpu(const GemmArgs& args, ThreadPool&) { GemmRef(args); }
void RopeKvWriteCpu(const RopeKvWriteArgs& args, ThreadPool&) { RopeKvWriteRef(args); }
void PagedAttentionCpu(const PagedAttentionArgs& args, ThreadPool&) { PagedAttentionRef(args); }
void SiluMulCpu(const SiluMulArgs& args, ThreadPool&) { SiluMulRef(args); }
void AddCpu(const AddArgs& args, ThreadPool&) { AddRef(args); }
float LogprobCpu(const LogprobArgs& args) { return LogprobRef(args); }
int32_t SampleCpu(const SampleArgs& args) { return SampleRef(args); }
bool HasNonFiniteCpu(std::span<const float> values) { return HasNonFiniteRef(values); }

}  // namespace fathom::kernels
