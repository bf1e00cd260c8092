// kernels/cuda/base/ptx.cuh: PTX instructions that have no C++ name, each defined once. Addresses
// of shared memory are 32-bit (SharedAddress). TMA, mbarriers and wgmma need sm_90a. An instruction
// is emitted only where its function is called, so other kernels can include this header on sm_80.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda::ptx {

FATHOM_DEVICE uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

FATHOM_DEVICE void StoreShared(uint32_t to, int value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
FATHOM_DEVICE void StoreSharedZero16(uint32_t to) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}
FATHOM_DEVICE int LoadShared(uint32_t from) {
  int value;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  return value;
}
FATHOM_DEVICE void StoreShared16(uint32_t to, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
               "r"(x.w)
               : "memory");
}
FATHOM_DEVICE uint4 LoadShared16(uint32_t from) {
  uint4 x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(from)
               : "memory");
  return x;
}

// A barrier with number `id` (1 to 15) for `threads` threads of a thread block.
FATHOM_DEVICE void SyncThreads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Adds to a counter that thread blocks share. Every write that this thread has seen is visible to
// each thread that sees the new count.
FATHOM_DEVICE void AddRelease(int32_t* to, int32_t value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
FATHOM_DEVICE int32_t LoadAcquire(const int32_t* from) {
  int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// Words that other devices and the host share with this one.
FATHOM_DEVICE void StoreReleaseSystem(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
FATHOM_DEVICE uint32_t LoadAcquireSystem(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
FATHOM_DEVICE void StoreRelaxedSystem(uint64_t* to, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}
// Both words with one store. `to` is aligned to 16 bytes.
FATHOM_DEVICE void StoreRelaxedSystem(uint64_t* to, uint64_t first, uint64_t second) {
  asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(first), "l"(second)
               : "memory");
}
FATHOM_DEVICE uint32_t LoadRelaxedSystem(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
// The device's clock, which the host's clock does not set. It may advance in steps of a
// microsecond.
FATHOM_DEVICE uint64_t ClockNs() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns)::"memory");
  return ns;
}
// Words that the thread blocks of this device share.
FATHOM_DEVICE void StoreRelaxed(uint32_t* to, uint32_t value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
FATHOM_DEVICE uint32_t LoadRelaxed(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
// Loads what a peer wrote before a meeting; never through the read-only cache.
FATHOM_DEVICE uint4 LoadPeer16(const uint4* from) {
  uint4 x;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from)
               : "memory");
  return x;
}
// Lines whose halves of 8 bytes come as a whole, from or to a peer.
FATHOM_DEVICE uint4 LoadVolatile16(const uint4* from) {
  uint4 x;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from)
               : "memory");
  return x;
}
FATHOM_DEVICE void StoreVolatile16(uint4* to, uint4 x) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x.x), "r"(x.y),
               "r"(x.z), "r"(x.w)
               : "memory");
}

// mbarriers. A wait names the parity of the phase that it waits for.
FATHOM_DEVICE void BarrierInit(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
FATHOM_DEVICE void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
FATHOM_DEVICE void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives at the barrier, and makes its phase also wait for `bytes` bytes of TMA.
FATHOM_DEVICE void BarrierArriveExpect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
FATHOM_DEVICE void BarrierWait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "W%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra D%=;\n"
      "bra W%=;\n"
      "D%=:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
FATHOM_DEVICE int BarrierTest(uint32_t barrier, int parity) {
  int done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.b32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done;
}

// Makes this thread's ordinary writes to shared memory visible to TMA and wgmma.
FATHOM_DEVICE void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// TMA: copies a box of a tensor map to shared memory, counted by an mbarrier; and back.
FATHOM_DEVICE void TmaLoad2d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
FATHOM_DEVICE void TmaLoad3d(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x, int y,
                             int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// The same with an L2 cache policy (EvictFirstPolicy).
FATHOM_DEVICE void TmaLoad3dPolicy(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x,
                                   int y, int z, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}
FATHOM_DEVICE uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
FATHOM_DEVICE void PrefetchL2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
FATHOM_DEVICE void PrefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
FATHOM_DEVICE void TmaStore3d(const CUtensorMap* map, uint32_t from, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
      "r"(from), "r"(x), "r"(y), "r"(z)
      : "memory");
}
FATHOM_DEVICE void TmaStoreCommit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until this thread's TMA stores have read shared memory, or are complete.
FATHOM_DEVICE void TmaStoreWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
FATHOM_DEVICE void TmaStoreWait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Copies four bytes from global to shared memory, like CopyAsync16. The wait below ends when all
// copies of this thread have arrived.
FATHOM_DEVICE void CopyAsync4(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
FATHOM_DEVICE void CopyAsyncWaitAll() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The barrier of all threads of a cluster; it also orders their accesses to each other's shared
// memory. The threads of a warp may have diverged when they call it.
FATHOM_DEVICE void ClusterArrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
FATHOM_DEVICE void ClusterWait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
FATHOM_DEVICE int ClusterBlock() {
  int block;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(block));
  return block;
}
FATHOM_DEVICE int ClusterBlocks() {
  int blocks;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return blocks;
}
// Arrives at the same barrier of another thread block of the cluster. The instruction has no scope
// on purpose: this thread has no writes to order, and a release at cluster scope would cost a
// microsecond for each stage.
FATHOM_DEVICE void ArriveAtBlock(uint32_t barrier, uint32_t block) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(barrier),
      "r"(block)
      : "memory");
}
// Copies a box to the same place in every thread block of `mask`; each one's own barrier counts it.
FATHOM_DEVICE void TmaMulticast3d(uint32_t to, const CUtensorMap* map, uint32_t barrier,
                                  uint16_t mask, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(barrier), "h"(mask), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// A pointer to the same object in the shared memory of another thread block of the cluster.
template <class T>
FATHOM_DEVICE T* InBlock(T* p, int block) {
  T* other;
  asm("mapa.u64 %0, %1, %2;" : "=l"(other) : "l"(p), "r"(block));
  return other;
}

// Stores four 8x8 matrices of 16-bit elements: lane i has the address of a row of matrix i / 8.
FATHOM_DEVICE void StoreMatrix4(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

// The order of wgmma: fence before a product reads registers, commit, then wait until at most N
// groups are running.
FATHOM_DEVICE void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FATHOM_DEVICE void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
FATHOM_DEVICE void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Moves registers between the warpgroups of a thread block (setmaxnreg).
template <int N>
FATHOM_DEVICE void KeepRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
FATHOM_DEVICE void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// mma.sync and its loads (sm_80 and later). CopyAsync16 copies 16 bytes to shared memory; it reads
// `bytes` of them (16 or 0) and fills the rest with zeros.
FATHOM_DEVICE void CopyAsync16(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(bytes)
               : "memory");
}
FATHOM_DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
FATHOM_DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
// Loads four 8x8 matrices: lane i has the address of a row of matrix i / 8.
FATHOM_DEVICE void LoadMatrix4(uint32_t* to, uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// The same, with each matrix transposed.
FATHOM_DEVICE void LoadMatrix4Transposed(uint32_t* to, uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
// c [16 x 8] += a [16 x 16] b [16 x 8], fp32.
template <class T>
FATHOM_DEVICE void Mma16816(float* c, const uint32_t* a, const uint32_t* b) {
  if constexpr (Element<T>::kDType == DType::kBf16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

}  // namespace fathom::kernels::cuda::ptx
