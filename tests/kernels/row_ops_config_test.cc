#include "kernels/cuda/rows/row_ops_config.h"

#include <gtest/gtest.h>

#include "kernels/cuda/attention/decode_attention_config.h"
#include "kernels/cuda/sampler/sampler_config.h"
#include "kernels/cuda/sampler/sampler_pick.h"

namespace fathom::kernels::cuda {
namespace {

TEST(RowOpsConfig, ANormKeepsTheWholeRowWhereItCan) {
  for (int width = 8; width <= 20000; width += 8) {
    const auto config = RmsNormPickConfig(3, width);
    ASSERT_TRUE(config) << width;
    EXPECT_EQ(config->blocks_x, 3);
    EXPECT_EQ(config->threads, 128);
    const int kept = config->variant * 8 * config->threads;
    if (width <= 8192) {
      EXPECT_GE(kept, width);
      // The next smaller instance would not have enough vectors.
      EXPECT_TRUE(config->variant == 1 || kept < 2 * width) << ToString(*config);
    } else {
      EXPECT_EQ(config->variant, 0) << width;
    }
  }
  EXPECT_EQ(RmsNormPickConfig(1, 4096)->variant, 4);
  EXPECT_EQ(RmsNormPickConfig(1, 7168)->variant, 8);
  EXPECT_FALSE(RmsNormPickConfig(1, 4));
  EXPECT_FALSE(RmsNormPickConfig(-1, 8));
}

TEST(RowOpsConfig, RotaryCoversEveryHead) {
  for (const int head_dim : {64, 128}) {
    for (const int heads : {1, 4, 28, 32, 56}) {
      const auto config = RopeKvWritePickConfig(7, heads, 4, head_dim);
      ASSERT_TRUE(config);
      // A thread has 16 elements of a head.
      EXPECT_GE(config->blocks_x * config->threads * 16, (heads + 8) * head_dim);
      EXPECT_LT((config->blocks_x - 1) * config->threads * 16, (heads + 8) * head_dim);
      EXPECT_EQ(config->blocks_y, 7);
      EXPECT_EQ(config->variant * 16, head_dim);
    }
  }
  EXPECT_FALSE(RopeKvWritePickConfig(1, 32, 32, 96));
  EXPECT_FALSE(RopeKvWritePickConfig(65536, 32, 32, 128));
  EXPECT_FALSE(RopeKvWritePickConfig(1, 0, 1, 128));
}

TEST(RowOpsConfig, SiluMulAndEmbedding) {
  for (const int ffn : {8, 704, 11008, 18944}) {
    const auto config = SiluMulPickConfig(5, ffn);
    ASSERT_TRUE(config);
    EXPECT_GE(config->blocks_x * config->threads * 8, ffn);
    EXPECT_LT((config->blocks_x - 1) * config->threads * 8, ffn);
    EXPECT_EQ(config->blocks_y, 5);
  }
  EXPECT_FALSE(SiluMulPickConfig(1, 12));
  EXPECT_EQ(EmbeddingPickConfig(9, 4096)->blocks_x, 9);
  EXPECT_FALSE(EmbeddingPickConfig(1, 4));
  EXPECT_EQ(ToString(*EmbeddingPickConfig(9, 4096)), "grid 9 x 1, threads 256, variant 0");
}

TEST(DecodeAttentionConfig, HeadsOfOneKvHeadAreColumns) {
  EXPECT_EQ(DecodeAttentionPickConfig(32, 32, 128)->columns, 8);
  EXPECT_EQ(DecodeAttentionPickConfig(56, 8, 128)->columns, 8);
  EXPECT_EQ(DecodeAttentionPickConfig(64, 4, 128)->columns, 16);
  EXPECT_FALSE(DecodeAttentionPickConfig(68, 4, 128));  // 17.
  EXPECT_FALSE(DecodeAttentionPickConfig(30, 4, 128));
  EXPECT_FALSE(DecodeAttentionPickConfig(32, 32, 96));
  EXPECT_FALSE(DecodeAttentionPickConfig(32, 0, 128));
  for (const int head_dim : {64, 128}) {
    for (const int group : {1, 8, 9, 16}) {
      const auto config = DecodeAttentionPickConfig(group, 1, head_dim);
      ASSERT_TRUE(config);
      EXPECT_GE(config->columns, group);
      // Three thread blocks fit on a multiprocessor of Hopper if a head has 128 dimensions.
      EXPECT_LE(3 * (config->shared_bytes + 1024), 228 * 1024) << ToString(*config);
    }
  }
  EXPECT_EQ(ToString(*DecodeAttentionPickConfig(32, 32, 128)),
            "head_dim 128, columns 8, halves 4, 66816 bytes shared");
}

TEST(SamplerPick, ClustersOnHopperAlone) {
  EXPECT_FALSE(SamplerPickConfig(75, 4096));
  for (const int sm : {80, 89, 100, 120}) {
    EXPECT_EQ(SamplerPickConfig(sm, 102400)->kernel, SamplerKernel::kGeneric) << sm;
  }
  for (const int vocab : {1, 1000, 32000, 102400, 152064, kSampleVocabMax}) {
    const auto config = SamplerPickConfig(90, vocab);
    ASSERT_TRUE(config);
    EXPECT_EQ(config->kernel, SamplerKernel::kCluster);
    for (int block = 0; block < config->blocks; ++block) {
      EXPECT_LE(LocalCount(vocab, block) * 4, config->shared_bytes) << vocab;
    }
    EXPECT_LE(config->shared_bytes, 227 * 1024 - 40 * 1024) << ToString(*config);
  }
  EXPECT_FALSE(SamplerPickConfig(90, kSampleVocabMax + 1));
  EXPECT_FALSE(SamplerPickConfig(90, 0));
}

}  // namespace
}  // namespace fathom::kernels::cuda
