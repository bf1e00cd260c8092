// kernels/cpu/dispatch.h: chooses the instruction set of the ops' Cpu versions. Every set gives the
// same bits as the reference. The choice is made at the first use: the set that FATHOM_CPU_ISA
// names ("reference", "avx2" or "avx512"), else the best set of the host. A name that is unknown or
// that the host does not support is ignored. Thread: any thread; UseCpuIsa only while no op runs.
#pragma once

#include <span>

namespace fathom::kernels {

enum class CpuIsa { kReference, kAvx2, kAvx512 };

const char* CpuIsaName(CpuIsa isa);
// The sets that this host can run. kReference is always one of them.
std::span<const CpuIsa> SupportedCpuIsas();
CpuIsa SelectedCpuIsa();
// For tests. REQUIRES: `isa` is supported.
void UseCpuIsa(CpuIsa isa);

struct CpuKernels;
// nullptr stands for the reference.
const CpuKernels* SelectedCpuKernels();

}  // namespace fathom::kernels
