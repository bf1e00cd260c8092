// kernels/cuda/linear/medium_mma.cuh: wgmma with both operands in shared memory: 64 rows of x by a
// whole tile of weight rows by 16 of k. The whole tile is one instruction, because each instruction
// reads the rows of x again. Operands are stored as columns of 64 16-bit elements: rows of 128
// bytes with the 128-byte swizzle, 1,024 bytes between groups of 8 rows.
#pragma once

#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::medium {

// The high word of every operand's descriptor: a distance of 1,024 bytes, the 128-byte swizzle.
inline constexpr uint32_t kDescriptorHigh = 0x40000040;

// The names and accumulators of a tile of 8 * count weight rows; each 8 rows take four accumulators
// of a thread.
#define FATHOM_NAMES4 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define FATHOM_NAMES5 FATHOM_NAMES4 ",%16,%17,%18,%19"
#define FATHOM_NAMES6 FATHOM_NAMES5 ",%20,%21,%22,%23"
#define FATHOM_NAMES7 FATHOM_NAMES6 ",%24,%25,%26,%27"
#define FATHOM_NAMES8 FATHOM_NAMES7 ",%28,%29,%30,%31"
#define FATHOM_NAMES10 FATHOM_NAMES8 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define FATHOM_NAMES12 FATHOM_NAMES10 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define FATHOM_NAMES16 \
  FATHOM_NAMES12       \
  ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define FATHOM_NAMES20 \
  FATHOM_NAMES16       \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define FATHOM_NAMES22 FATHOM_NAMES20 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define FATHOM_NAMES28                                              \
  FATHOM_NAMES22                                                    \
  ",%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102" \
  ",%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define FATHOM_ACC4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define FATHOM_ACC16X(c) FATHOM_ACC4(c, 0), FATHOM_ACC4(c, 4), FATHOM_ACC4(c, 8), FATHOM_ACC4(c, 12)
#define FATHOM_ACC20X(c) FATHOM_ACC16X(c), FATHOM_ACC4(c, 16)
#define FATHOM_ACC24X(c) FATHOM_ACC20X(c), FATHOM_ACC4(c, 20)
#define FATHOM_ACC28X(c) FATHOM_ACC24X(c), FATHOM_ACC4(c, 24)
#define FATHOM_ACC32X(c) FATHOM_ACC28X(c), FATHOM_ACC4(c, 28)
#define FATHOM_ACC40X(c) FATHOM_ACC32X(c), FATHOM_ACC4(c, 32), FATHOM_ACC4(c, 36)
#define FATHOM_ACC48X(c) FATHOM_ACC40X(c), FATHOM_ACC4(c, 40), FATHOM_ACC4(c, 44)
#define FATHOM_ACC64X(c) \
  FATHOM_ACC48X(c), FATHOM_ACC4(c, 48), FATHOM_ACC4(c, 52), FATHOM_ACC4(c, 56), FATHOM_ACC4(c, 60)
#define FATHOM_ACC80X(c) \
  FATHOM_ACC64X(c), FATHOM_ACC4(c, 64), FATHOM_ACC4(c, 68), FATHOM_ACC4(c, 72), FATHOM_ACC4(c, 76)
#define FATHOM_ACC88X(c) FATHOM_ACC80X(c), FATHOM_ACC4(c, 80), FATHOM_ACC4(c, 84)
#define FATHOM_ACC112X(c)                                                       \
  FATHOM_ACC88X(c), FATHOM_ACC4(c, 88), FATHOM_ACC4(c, 92), FATHOM_ACC4(c, 96), \
      FATHOM_ACC4(c, 100), FATHOM_ACC4(c, 104), FATHOM_ACC4(c, 108)

// `x`, `w` and `high` name the operands after the accumulators: the two low words and the high
// word.
#define FATHOM_WGMMA(rows, type, names, x, w, high, accumulators)                   \
  asm volatile(                                                                     \
      "{\n"                                                                         \
      ".reg .b64 x, w;\n"                                                           \
      ".reg .pred p;\n"                                                             \
      "setp.ne.b32 p, 1, 0;\n"                                                      \
      "mov.b64 x, {" x ", " high                                                    \
      "};\n"                                                                        \
      "mov.b64 w, {" w ", " high                                                    \
      "};\n"                                                                        \
      "wgmma.mma_async.sync.aligned.m64n" #rows "k16.f32." type "." type " {" names \
      "}, x, w, p, 1, 1, 0, 0;\n"                                                   \
      "}"                                                                           \
      : accumulators                                                                \
      : "r"(x_low), "r"(w_low), "n"(kDescriptorHigh))
// The tiles that MediumTiles (kernels/cuda/linear/medium_config.h) names.
#define FATHOM_WGMMA_TILES(type)                                                        \
  if constexpr (kTile == 32) {                                                          \
    FATHOM_WGMMA(32, type, FATHOM_NAMES4, "%16", "%17", "%18", FATHOM_ACC16X(c));       \
  } else if constexpr (kTile == 40) {                                                   \
    FATHOM_WGMMA(40, type, FATHOM_NAMES5, "%20", "%21", "%22", FATHOM_ACC20X(c));       \
  } else if constexpr (kTile == 48) {                                                   \
    FATHOM_WGMMA(48, type, FATHOM_NAMES6, "%24", "%25", "%26", FATHOM_ACC24X(c));       \
  } else if constexpr (kTile == 56) {                                                   \
    FATHOM_WGMMA(56, type, FATHOM_NAMES7, "%28", "%29", "%30", FATHOM_ACC28X(c));       \
  } else if constexpr (kTile == 64) {                                                   \
    FATHOM_WGMMA(64, type, FATHOM_NAMES8, "%32", "%33", "%34", FATHOM_ACC32X(c));       \
  } else if constexpr (kTile == 80) {                                                   \
    FATHOM_WGMMA(80, type, FATHOM_NAMES10, "%40", "%41", "%42", FATHOM_ACC40X(c));      \
  } else if constexpr (kTile == 96) {                                                   \
    FATHOM_WGMMA(96, type, FATHOM_NAMES12, "%48", "%49", "%50", FATHOM_ACC48X(c));      \
  } else if constexpr (kTile == 128) {                                                  \
    FATHOM_WGMMA(128, type, FATHOM_NAMES16, "%64", "%65", "%66", FATHOM_ACC64X(c));     \
  } else if constexpr (kTile == 160) {                                                  \
    FATHOM_WGMMA(160, type, FATHOM_NAMES20, "%80", "%81", "%82", FATHOM_ACC80X(c));     \
  } else if constexpr (kTile == 176) {                                                  \
    FATHOM_WGMMA(176, type, FATHOM_NAMES22, "%88", "%89", "%90", FATHOM_ACC88X(c));     \
  } else if constexpr (kTile == 224) {                                                  \
    FATHOM_WGMMA(224, type, FATHOM_NAMES28, "%112", "%113", "%114", FATHOM_ACC112X(c)); \
  } else {                                                                              \
    static_assert(kTile == 0, "no such tile");                                          \
  }

// Multiplies all kTile weight rows with one step of 16 of k. Each operand is given by its
// descriptor's low word.
template <class T, int kTile>
FATHOM_DEVICE void MultiplyTile(float* c, uint32_t x_low, uint32_t w_low) {
  if constexpr (Element<T>::kDType == DType::kBf16) {
    FATHOM_WGMMA_TILES("bf16")
  } else {
    FATHOM_WGMMA_TILES("f16")
  }
}

#undef FATHOM_WGMMA_TILES
#undef FATHOM_WGMMA
#undef FATHOM_ACC4
#undef FATHOM_ACC16X
#undef FATHOM_ACC20X
#undef FATHOM_ACC24X
#undef FATHOM_ACC28X
#undef FATHOM_ACC32X
#undef FATHOM_ACC40X
#undef FATHOM_ACC48X
#undef FATHOM_ACC64X
#undef FATHOM_ACC80X
#undef FATHOM_ACC88X
#undef FATHOM_ACC112X
#undef FATHOM_NAMES4
#undef FATHOM_NAMES5
#undef FATHOM_NAMES6
#undef FATHOM_NAMES7
#undef FATHOM_NAMES8
#undef FATHOM_NAMES10
#undef FATHOM_NAMES12
#undef FATHOM_NAMES16
#undef FATHOM_NAMES20
#undef FATHOM_NAMES22
#undef FATHOM_NAMES28

// The compiler may not move uses of the accumulators across this call.
template <int kCount>
FATHOM_DEVICE void Hold(float* c) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    asm volatile("" : "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])::"memory");
  }
}

}  // namespace fathom::kernels::cuda::medium
