// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;

/**
 * SentencePiece's BPE joins the two neighbours whose joint piece has the best score; a {@code
 * tokenizer.json} lists which two are joined, best first. So every way to cut a piece into two
 * pieces is a merge, ranked by the score of the whole, and among equals by the ids of the parts.
 */
final class PieceMerges {
  /** Longer pieces are runs of spaces and the like, which shorter ones make up just as well. */
  private static final int MAX_LENGTH = 128;
  /** Texts of merges together; LLaMA 2's have half a million characters. */
  private static final long MAX_CHARACTERS = 32 << 20;

  private record Merge(String left, String right, float score) {}

  private PieceMerges() {}

  /**
   * The merges.
   *
   * @param pieces ids by piece, of those that may be joined or be parts
   * @param scores by id
   */
  static List<List<String>> of(Map<String, Integer> pieces, float[] scores, String file) {
    var merges = new ArrayList<Merge>();
    long characters = 0;
    for (var entry : pieces.entrySet()) {
      var piece = entry.getKey();
      if (piece.length() > MAX_LENGTH) {
        continue;
      }
      for (int cut = 1; cut < piece.length(); cut++) {
        var left = piece.substring(0, cut);
        if (!pieces.containsKey(left)) {
          continue;
        }
        var right = piece.substring(cut);
        if (!pieces.containsKey(right)) {
          continue;
        }
        characters += piece.length();
        if (characters > MAX_CHARACTERS) {
          throw Problem.in(file, "tokenizer.ggml.tokens: more than " + MAX_CHARACTERS
              + " characters in pairs of tokens that make a token");
        }
        merges.add(new Merge(left, right, scores[entry.getValue()]));
      }
    }
    merges.sort(Comparator.comparingDouble((Merge merge) -> -merge.score())
        .thenComparingInt(merge -> pieces.get(merge.left()))
        .thenComparingInt(merge -> pieces.get(merge.right())));
    return merges.stream().map(merge -> List.of(merge.left(), merge.right())).toList();
  }
}
