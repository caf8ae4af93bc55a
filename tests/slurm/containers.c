/* A SPANK plugin that takes srun's options --container-image and --container-mounts as Pyxis does: a step's tasks have
 * another root, see of the node what is mounted there and nothing else, and begin in "/".
 *
 *     plugstack.conf: required containers.so has=/usr:/etc:...
 *
 * An image is a folder; in it lie, as if they were its own, the folders that `has` names. It is fetched for as long as
 * there is a file IMAGE.fetching, or IMAGE.fetching.NODE for that node. Needs root. */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <slurm/spank.h>

SPANK_PLUGIN(containers, 1);

static char image[PATH_MAX], mounts[8192];

static int keep(int which, const char *given, int remote)
{
    (void)remote;
    snprintf(which ? mounts : image, which ? sizeof mounts : sizeof image, "%s", given);
    return 0;
}

static struct spank_option options[] = {
    {"container-image", "PATH", "[containers] the folder that becomes the root", 1, 0, keep},
    {"container-mounts", "SRC[:DST][,...]", "[containers] what is mounted in it", 1, 1, keep},
    SPANK_OPTIONS_TABLE_END,
};

int slurm_spank_init(spank_t sp, int ac, char **av)
{
    (void)ac, (void)av;
    for (struct spank_option *each = options; each->name; each++)
        if (spank_option_register(sp, each) != ESPANK_SUCCESS)
            return -1;
    return 0;
}

static int fetching(const char *node)
{
    char everywhere[PATH_MAX + 16], here[PATH_MAX + 80];
    snprintf(everywhere, sizeof everywhere, "%s.fetching", image);
    snprintf(here, sizeof here, "%s.%s", everywhere, node);
    return !access(everywhere, F_OK) || !access(here, F_OK);
}

/* In slurmstepd, once a node, before there are tasks. */
int slurm_spank_user_init(spank_t sp, int ac, char **av)
{
    (void)ac, (void)av;
    if (!*image || !spank_remote(sp))
        return 0;
    const char *node = getenv("SLURMD_NODENAME"); /* what the test cluster starts slurmd with */
    while (fetching(node ? node : ""))
        usleep(50000);
    struct stat found;
    if (stat(image, &found) || !S_ISDIR(found.st_mode)) {
        slurm_error("containers: failed to import image %s", image);
        return -1;
    }
    return 0;
}

static int mounted(const char *from, const char *to)
{
    char target[2 * PATH_MAX];
    struct stat found;
    snprintf(target, sizeof target, "%s%s", image, to);
    for (char *slash = target + strlen(image) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(target, 0755);
    }
    if (!stat(from, &found) && !S_ISDIR(found.st_mode))
        fclose(fopen(target, "a"));
    else
        mkdir(target, 0755);
    if (mount(from, target, NULL, MS_BIND | MS_REC, NULL)) {
        slurm_error("containers: failed to mount %s at %s: %s", from, to, strerror(errno));
        return -1;
    }
    return 0;
}

/* In each task, which stands in its folder by then. */
int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
    (void)sp;
    if (!*image)
        return 0;
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL))
        return -1;
    for (int i = 0; i < ac; i++)
        if (!strncmp(av[i], "has=", 4))
            for (char *own = strtok(strdup(av[i] + 4), ":"); own; own = strtok(NULL, ":"))
                if (mounted(own, own))
                    return -1;
    for (char *each = strtok(mounts, ","); each; each = strtok(NULL, ",")) {
        char *to = strchr(each, ':');
        if (to)
            *to++ = '\0';
        if (mounted(each, to ? to : each))
            return -1;
    }
    return chroot(image) || chdir("/") ? -1 : 0;
}
