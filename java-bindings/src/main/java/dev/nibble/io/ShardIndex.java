// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * {@code model.safetensors.index.json}: {@code {"weight_map": {"TENSOR": "SHARD FILE", ...}}}.
 *
 * <p>The index comes with the model, so its author chooses the names of the files that get opened.
 * A shard must therefore be a plain file name, and what it leads to must lie in the model's
 * directory. One exception keeps Hugging Face's download cache working, where
 * {@code models--X/snapshots/REVISION/SHARD} is a link to {@code models--X/blobs/HASH}: there the
 * target may lie in that folder {@code blobs}.
 */
final class ShardIndex {

  private static final int MAX_SHARDS = 1024;

  private ShardIndex() {}

  /**
   * Opens all shards.
   *
   * @param directory the model's directory
   * @param json the bytes of the index
   * @throws ModelFormatException naming the index, the tensor and the shard
   */
  static TensorStore open(Path directory, byte[] json) {
    var index = Problem.printable(directory.resolve(CheckpointNames.WEIGHTS_INDEX).toString());
    var shardOf = weightMap(index, Json.parseObject(json, index));
    var shards = new LinkedHashMap<String, ByteSource>();
    try {
      for (var entry : shardOf.entrySet()) {
        var shard = entry.getValue();
        if (shards.containsKey(shard)) {
          continue;
        }
        if (shards.size() == MAX_SHARDS) {
          throw Problem.in(index, "weight_map names more than " + MAX_SHARDS + " files");
        }
        shards.put(shard, ByteSource.file(resolve(directory, index, entry.getKey(), shard)));
      }
    } catch (Throwable e) {
      shards.values().forEach(ByteSource::close);
      throw e;
    }
    return TensorStore.of(index, shardOf, shards);
  }

  private static Map<String, String> weightMap(String index, Map<String, Object> root) {
    var value = root.get("weight_map");
    if (!(value instanceof Map<?, ?> map)) {
      throw Problem.in(index, "weight_map is " + (value == null ? "missing" : Json.typeName(value))
          + ", expected an object of tensor names and file names");
    }
    var shardOf = LinkedHashMap.<String, String>newLinkedHashMap(map.size());
    for (var entry : map.entrySet()) {
      var tensor = (String) entry.getKey();
      if (!(entry.getValue() instanceof String shard)) {
        throw Problem.inTensor(index, tensor, "weight_map has " + Json.typeName(entry.getValue())
            + " (" + Problem.show(entry.getValue()) + "), expected a file name");
      }
      shardOf.put(tensor, shard);
    }
    return shardOf;
  }

  private static Path resolve(Path directory, String index, String tensor, String shard) {
    if (!isPlainFileName(shard)) {
      throw Problem.inTensor(index, tensor, "weight_map names " + Problem.quote(shard)
          + ", expected the plain name of a file in the model's directory");
    }
    var path = directory.resolve(shard);
    if (!Files.exists(path)) {
      throw Problem.inTensor(index, tensor,
          "weight_map names " + Problem.quote(shard) + ", which does not exist");
    }
    try {
      var home = directory.toRealPath();
      var target = path.toRealPath();
      if (!target.startsWith(home) && !isHubBlob(home, target)) {
        throw Problem.inTensor(index, tensor, "weight_map names " + Problem.quote(shard)
            + ", a link that leads out of the model's directory");
      }
    } catch (IOException e) {
      throw Problem.reading(Problem.printable(path.toString()), e);
    }
    return path;
  }

  private static boolean isPlainFileName(String name) {
    return !name.isEmpty() && !name.equals(".") && !name.equals("..")
        && name.indexOf('/') < 0 && name.indexOf('\\') < 0 && name.indexOf('\0') < 0
        && name.indexOf(':') < 0;
  }

  private static boolean isHubBlob(Path home, Path target) {
    var snapshots = home.getParent();
    return snapshots != null && snapshots.endsWith("snapshots") && snapshots.getParent() != null
        && target.startsWith(snapshots.getParent().resolve("blobs"));
  }
}
